"""The methods of the edge, read from the descriptors: only methods that the contract opens are reachable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from openagents.common.v1 import options_pb2, scopes_pb2
from openagents.control.v1 import (
    account_service_pb2,
    api_key_service_pb2,
    audit_service_pb2,
    auth_service_pb2,
    block_service_pb2,
    installation_account_service_pb2,
    installation_audit_service_pb2,
    installation_org_service_pb2,
    installation_session_service_pb2,
    invitation_service_pb2,
    member_service_pb2,
    org_service_pb2,
    policy_service_pb2,
    provider_sign_in_service_pb2,
    revocation_service_pb2,
    route_service_pb2,
    service_account_service_pb2,
    session_service_pb2,
    signing_key_service_pb2,
    sync_token_service_pb2,
)
from openagents.projection.v1 import read_service_pb2
from openagents.runtime.v1 import (
    log_service_pb2,
    receipt_service_pb2,
    replay_service_pb2,
    run_service_pb2,
    schedule_service_pb2,
    worker_service_pb2,
    worker_watch_service_pb2,
)
from services.control.edge.limits import CallClass
from services.control.policy.domain import Access, AnyPrincipal, Public, Scope, Scoped, SessionOnly

FILES: tuple[FileDescriptor, ...] = (
    account_service_pb2.DESCRIPTOR,
    api_key_service_pb2.DESCRIPTOR,
    audit_service_pb2.DESCRIPTOR,
    auth_service_pb2.DESCRIPTOR,
    block_service_pb2.DESCRIPTOR,
    installation_account_service_pb2.DESCRIPTOR,
    installation_audit_service_pb2.DESCRIPTOR,
    installation_org_service_pb2.DESCRIPTOR,
    installation_session_service_pb2.DESCRIPTOR,
    invitation_service_pb2.DESCRIPTOR,
    member_service_pb2.DESCRIPTOR,
    org_service_pb2.DESCRIPTOR,
    policy_service_pb2.DESCRIPTOR,
    provider_sign_in_service_pb2.DESCRIPTOR,
    revocation_service_pb2.DESCRIPTOR,
    route_service_pb2.DESCRIPTOR,
    service_account_service_pb2.DESCRIPTOR,
    session_service_pb2.DESCRIPTOR,
    signing_key_service_pb2.DESCRIPTOR,
    sync_token_service_pb2.DESCRIPTOR,
    run_service_pb2.DESCRIPTOR,
    receipt_service_pb2.DESCRIPTOR,
    replay_service_pb2.DESCRIPTOR,
    schedule_service_pb2.DESCRIPTOR,
    worker_service_pb2.DESCRIPTOR,
    worker_watch_service_pb2.DESCRIPTOR,
    log_service_pb2.DESCRIPTOR,
    read_service_pb2.DESCRIPTOR,
)
"""Every file with a service of a plane that the edge can reach. The options say which methods it opens."""


_MINTS = frozenset({"openagents.control.v1.SyncTokenService/MintSyncToken"})


class Plane(Enum):
    """The plane that owns a method. The value is the package; `audience` names the service in the principal token."""

    CONTROL = "openagents.control.v1"
    RUNTIME = "openagents.runtime.v1"
    PROJECTOR = "openagents.projection.v1"

    @property
    def audience(self) -> str:
        """The serving process."""
        return self.name.lower()


@dataclass(frozen=True)
class Method:
    """A method of the edge. `name` is "package.Service/Method", as in the path."""

    name: str
    plane: Plane
    access: Access
    request_type: type[Message]
    response_type: type[Message]
    reads_only: bool
    """Whether the contract says that the method changes nothing (`NO_SIDE_EFFECTS`)."""

    @property
    def call_class(self) -> CallClass:
        """What a call costs."""
        if isinstance(self.access, Public):
            return CallClass.PUBLIC
        if self.name in _MINTS:
            return CallClass.MINT
        return CallClass.READ if self.reads_only else CallClass.WRITE


def contract_scopes() -> frozenset[str]:
    """The registry of scopes: those of the contract, all of which the policy has to know."""
    values = scopes_pb2.Scope.DESCRIPTOR.values
    return frozenset(value.GetOptions().Extensions[scopes_pb2.scope_text] for value in values if value.number)


def open_methods(files: Iterable[FileDescriptor] = FILES) -> Mapping[str, Method]:
    """Name -> method, for every method with an option that opens it.

    Raises ValueError for a contract that can't be served: other scopes than the policy's, several options at once, a
    stream, or another plane's method that is opened to everybody. Not starting is better than opening a method that
    nobody meant to open.
    """
    if contract_scopes() != set(Scope):
        raise ValueError("the policy and openagents.common.v1.Scope don't have the same scopes")
    methods = (
        _method(descriptor)
        for file in files
        for service in file.services_by_name.values()
        for descriptor in service.methods
    )
    return {method.name: method for method in methods if method}


def _method(descriptor: MethodDescriptor) -> Method | None:
    service = descriptor.containing_service
    name = f"{service.full_name}/{descriptor.name}"
    access = _access(name, descriptor)
    if access is None:
        return None
    plane = _plane(service.file.package)
    if isinstance(access, Public) and plane is not Plane.CONTROL:
        raise ValueError(f"{name} is public, but its service is called for principals only")
    if descriptor.client_streaming or descriptor.server_streaming:
        raise ValueError(f"{name} is a stream, and the edge serves unary methods only")
    return Method(
        name=name,
        plane=plane,
        access=access,
        request_type=GetMessageClass(descriptor.input_type),
        response_type=GetMessageClass(descriptor.output_type),
        reads_only=descriptor.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
    )


def _plane(package: str) -> Plane:
    try:
        return Plane(package)
    except ValueError:
        raise ValueError(f"nobody serves the package {package}") from None


def _access(name: str, descriptor: MethodDescriptor) -> Access | None:
    options = descriptor.GetOptions().Extensions
    scope, fresh = options[options_pb2.required_scope], options[options_pb2.fresh_sign_in]
    stated: list[Access] = []
    if options[options_pb2.public]:
        stated.append(Public())
    if options[options_pb2.any_principal]:
        stated.append(AnyPrincipal())
    if options[options_pb2.session_only]:
        stated.append(SessionOnly(fresh))
    if scope:
        if scope not in set(Scope):
            raise ValueError(f"{name} requires the scope {scope!r}, which is not in the registry")
        stated.append(Scoped(Scope(scope), fresh))
    if len(stated) > 1:
        raise ValueError(f"{name} states more than one of public, any_principal, session_only and required_scope")
    if fresh and not (stated and isinstance(stated[0], Scoped | SessionOnly)):
        raise ValueError(f"{name} needs a fresh sign-in, and is open to callers who never signed in")
    return stated[0] if stated else None
