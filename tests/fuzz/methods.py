"""Every method that there is, read from proto/: a new one can't be forgotten."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from oa_platform.auth.authenticator import Need, policy_of
from oa_testing.postgres import REPOSITORY

SERVERS = {
    "openagents.control.v1": ("control",),
    "openagents.runtime.v1": ("runtime",),
    "openagents.projection.v1": ("projector",),
    "openagents.sync.v1": ("runtime", "projector"),
}
"""Package -> the processes that serve its services. The gateway serves only what gRPC itself has."""
_RECORDS_NOTHING = frozenset(
    {
        "openagents.control.v1.RevocationService/WatchRevocations",  # it reads, on a stream
        # The good requests of the tests change nothing: nothing is deleted or closed, and ann is in her org already.
        "openagents.control.v1.InstallationOrgService/RestoreInstallationOrg",
        "openagents.control.v1.InstallationOrgService/SetInstallationOrgOwner",
        "openagents.control.v1.OrgService/RestoreOrg",
        "openagents.control.v1.RouteService/EndMaintenance",
        "openagents.control.v1.RouteService/StartCanary",
        "openagents.control.v1.SessionService/SwitchOrg",
    }
)


@dataclass(frozen=True)
class Target:
    """A method at a process. `path` is "package.Service/Method"."""

    process: str
    path: str
    descriptor: MethodDescriptor

    @property
    def need(self) -> Need:
        """The identity that the gRPC door asks for."""
        return policy_of(self.path).need

    @property
    def is_stream(self) -> bool:
        """Whether it is more than one request and one answer."""
        return bool(self.descriptor.client_streaming or self.descriptor.server_streaming)

    @property
    def is_recorded(self) -> bool:
        """Whether a good request has to be in the audit log."""
        changes = self.descriptor.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        return self.process == "control" and changes and self.path not in _RECORDS_NOTHING

    def request(self, document: Any) -> Message:
        """The request that is this JSON; raises json_format.ParseError."""
        return json_format.ParseDict(document, GetMessageClass(self.descriptor.input_type)())

    def __str__(self) -> str:
        return f"{self.process}:{self.path.rpartition('.')[2]}"


def all_targets() -> list[Target]:
    """Every method of every service of ours, at every process that serves it; in the order of their names."""
    found = [
        Target(process, f"{method.containing_service.full_name}/{method.name}", method)
        for method in _methods()
        for process in SERVERS[method.containing_service.file.package]
    ]
    return sorted(found, key=str)


def _methods() -> Iterator[MethodDescriptor]:
    root = REPOSITORY / "proto"
    for path in sorted(root.rglob("*.proto")):
        parts = PurePosixPath(path.relative_to(root).as_posix()).with_suffix("").parts
        module = importlib.import_module(".".join(parts) + "_pb2")
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods
