"""The edge's parts that need no socket: headers, packing, and the methods that the contract opens."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from oa_base.refusal import Refusal
from oa_khala.topics import TOPIC_CLASSES
from openagents.common.v1 import options_pb2, scopes_pb2
from services.control.edge.domain import timeout_s
from services.control.edge.door import methods
from services.control.edge.door.body import GZIP_FROM_BYTES, packed_if_wanted, unpacked
from services.control.edge.door.methods import FILES, Plane, contract_scopes, open_methods
from services.control.policy.domain import AnyPrincipal, Public, Scope, Scoped, SessionOnly
from services.control.tests.harness import new_id


def test_a_client_may_ask_for_less_time_and_never_for_more() -> None:
    assert timeout_s({}, 30.0) == 30.0
    assert timeout_s({"connect-timeout-ms": "1500"}, 30.0) == 1.5
    assert timeout_s({"connect-timeout-ms": "9999999999"}, 30.0) == 30.0


@pytest.mark.parametrize(
    ("accepts", "packs"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("", False),
        ("br", False),
    ],
)
def test_an_answer_is_packed_for_who_takes_it(accepts: str, packs: bool) -> None:
    body = b"x" * GZIP_FROM_BYTES
    packed, headers = packed_if_wanted(body, accepts)
    assert headers == ({"content-encoding": "gzip"} if packs else {})
    assert (gzip.decompress(packed) if packs else packed) == body
    assert packed_if_wanted(body[1:], accepts) == (body[1:], {})


@pytest.mark.parametrize("extra", [0, 1])
def test_unpacking_stops_at_the_limit(extra: int) -> None:
    packed = gzip.compress(b"\0" * (4096 + extra))
    if extra:
        with pytest.raises(Refusal, match="request_too_large"):
            unpacked(packed, 4096)
    else:
        assert unpacked(packed, 4096) == b"\0" * 4096


# ------------------------------------------------------------------------------------------------- methods


def test_the_contract_decides_what_is_open_and_for_whom() -> None:
    methods = open_methods()
    assert methods["openagents.control.v1.AuthService/StartChallenge"].access == Public()
    assert methods["openagents.control.v1.SessionService/GetCaller"].access == AnyPrincipal()
    assert methods["openagents.control.v1.SessionService/RevokeSession"].access == SessionOnly()
    create = methods["openagents.runtime.v1.RunService/CreateRun"]
    assert (create.access, create.plane) == (Scoped(Scope.RUNS_WRITE), Plane.RUNTIME)
    assert methods["openagents.projection.v1.ReadService/ListRunSummaries"].plane.audience == "projector"
    every = {
        f"{service.full_name}/{method.name}"
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert every - set(methods) == {
        "openagents.control.v1.BlockService/GetSubject",
        "openagents.control.v1.BlockService/BlockSubject",
        "openagents.control.v1.BlockService/UnblockSubject",
        "openagents.control.v1.InstallationAccountService/GetInstallationAccountDeletion",
        "openagents.control.v1.InstallationAccountService/DeleteInstallationAccount",
        "openagents.control.v1.InstallationAuditService/ListInstallationAuditEvents",
        "openagents.control.v1.InstallationAuditService/ReadInstallationAuditLog",
        "openagents.control.v1.InstallationOrgService/ListInstallationOrgs",
        "openagents.control.v1.InstallationOrgService/GetInstallationOrg",
        "openagents.control.v1.InstallationOrgService/RestoreInstallationOrg",
        "openagents.control.v1.InstallationOrgService/SetInstallationOrgOwner",
        "openagents.control.v1.InstallationSessionService/ListInstallationSessions",
        "openagents.control.v1.InstallationSessionService/RevokeInstallationSessions",
        "openagents.control.v1.PolicyService/Authorize",
        "openagents.control.v1.RevocationService/WatchRevocations",
        "openagents.control.v1.RouteService/GetRoutes",
        "openagents.control.v1.RouteService/SetRoute",
        "openagents.control.v1.RouteService/DeleteRoute",
        "openagents.control.v1.RouteService/RollBackRoutes",
        "openagents.control.v1.RouteService/StartCanary",
        "openagents.control.v1.RouteService/StartMaintenance",
        "openagents.control.v1.RouteService/EndMaintenance",
        "openagents.control.v1.RouteService/CreateBypass",
        "openagents.control.v1.SigningKeyService/ListSigningKeys",
        "openagents.control.v1.SigningKeyService/RotateSigningKey",
        "openagents.runtime.v1.WorkerService/Attach",
        "openagents.runtime.v1.WorkerService/AppendEvents",
        "openagents.runtime.v1.WorkerService/ReadHeldRun",
        "openagents.runtime.v1.WorkerService/ExpireRequest",
        "openagents.runtime.v1.WorkerService/StartChild",
        "openagents.runtime.v1.WorkerWatchService/WatchWorkers",
        "openagents.runtime.v1.LogService/TailLog",
        "openagents.runtime.v1.LogService/DescribeLog",
        "openagents.projection.v1.ReadService/ListCheckpoints",
    }


def test_no_service_of_a_plane_is_left_out() -> None:
    proto = Path(__file__).resolve().parents[4] / "proto"
    folders = [proto / plane.value.replace(".", "/") for plane in Plane]
    services = {str(file.relative_to(proto)) for folder in folders for file in folder.glob("*_service.proto")}
    assert {file.name for file in FILES} == services


def test_the_contract_has_the_registry_of_scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {value.name: value.number for value in scopes_pb2.Scope.DESCRIPTOR.values if value.number}
    assert names.keys() == {f"SCOPE_{text.replace('.', '_').upper()}" for text in contract_scopes()}
    assert {topic_class.required_scope for topic_class in TOPIC_CLASSES} <= contract_scopes()
    for known in (contract_scopes() - {"runs.read"}, contract_scopes() | {"runs.destroy"}):
        monkeypatch.setattr(methods, "contract_scopes", lambda known=known: known)
        with pytest.raises(ValueError, match="the same scopes"):
            open_methods()


@pytest.mark.parametrize(
    ("package", "options", "stream", "problem"),
    [
        ("openagents.control.v1", {"required_scope": "runs.destroy"}, False, "not in the registry"),
        ("openagents.control.v1", {"public": True, "any_principal": True}, False, "more than one"),
        ("openagents.control.v1", {"session_only": True, "any_principal": True}, False, "more than one"),
        ("openagents.control.v1", {"public": True, "required_scope": "runs.read"}, False, "more than one"),
        ("openagents.control.v1", {"public": True, "fresh_sign_in": True}, False, "never signed in"),
        ("openagents.control.v1", {"fresh_sign_in": True}, False, "never signed in"),
        ("openagents.control.v1", {"any_principal": True}, True, "stream"),
        ("openagents.runtime.v1", {"public": True}, False, "principals only"),
        ("somebody.elses.v1", {"any_principal": True}, False, "nobody serves"),
    ],
)
def test_a_contract_that_cannot_be_served_stops_the_start(
    package: str, options: dict[str, object], stream: bool, problem: str
) -> None:
    unique = new_id("tst")
    file = descriptor_pb2.FileDescriptorProto(name=f"{unique}.proto", package=package, syntax="proto3")
    file.message_type.add(name=f"M{unique}")
    method = file.service.add(name=f"S{unique}").method.add(
        name="Do", input_type=f".{package}.M{unique}", output_type=f".{package}.M{unique}", server_streaming=stream
    )
    for name, value in options.items():
        method.options.Extensions[getattr(options_pb2, name)] = value
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    with pytest.raises(ValueError, match=problem):
        open_methods([pool.FindFileByName(file.name)])
