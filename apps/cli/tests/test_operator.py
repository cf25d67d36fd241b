"""The way of operators to control: with our certificate where there is one, and never in the clear to elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest

from apps.cli.__main__ import run
from apps.cli.admin.operator import operators, operators_audit_heads
from apps.cli.exits import Exit
from oa_base.refusal import Refusal
from oa_client.cpython.operators.subjects import SubjectOperators
from oa_platform.config.ports import PORT_OFFSETS
from oa_runlog.proof.audit import AuditHead
from oa_testing.peers.authority import Authority
from oa_testing.postgres import free_port
from openagents.control.v1 import block_service_pb2 as pb
from openagents.control.v1 import installation_audit_service_pb2 as audit_pb
from openagents.control.v1 import installation_org_service_pb2 as org_pb
from openagents.control.v1 import installation_session_service_pb2 as session_pb
from openagents.control.v1.block_service_pb2_grpc import add_BlockServiceServicer_to_server
from openagents.control.v1.installation_audit_service_pb2_grpc import add_InstallationAuditServiceServicer_to_server
from openagents.control.v1.installation_org_service_pb2_grpc import add_InstallationOrgServiceServicer_to_server
from openagents.control.v1.installation_session_service_pb2_grpc import add_InstallationSessionServiceServicer_to_server

TOKEN = "the operators' own"


class _Control:
    """Says which certificate called."""

    async def GetSubject(self, request: pb.GetSubjectRequest, context: Any) -> pb.GetSubjectResponse:
        said = dict(context.invocation_metadata())
        names = context.auth_context()["x509_subject_alternative_name"]
        assert said["x-oa-service-token"] == TOKEN
        return pb.GetSubjectResponse(subject=pb.Subject(subject=request.subject, name=names[0].decode()))

    BlockSubject = UnblockSubject = GetSubject


@asynccontextmanager
async def control_that_wants_a_certificate(authority: Authority) -> AsyncIterator[int]:
    own = authority.issue("localhost")
    pairs = [(own.key, own.certificate)]
    credentials = grpc.ssl_server_credentials(pairs, authority.certificate, require_client_auth=True)
    server = grpc.aio.server()
    add_BlockServiceServicer_to_server(cast("Any", _Control()), server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def _name_of(env: Mapping[str, str]) -> str:
    async with operators(SubjectOperators, {"OA_OPERATOR_TOKEN": TOKEN, **env}) as at:
        return (await at.show("usr_1")).name


async def test_it_shows_its_certificate_and_its_token(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue("operators").write(tmp_path)
    files = {"CERT": certificate, "KEY": key, "CA": authority.write(tmp_path)}
    async with control_that_wants_a_certificate(authority) as port:
        env = {f"OA_TLS_{what}_FILE": str(file) for what, file in files.items()}
        assert await _name_of({"OA_CONTROL_GRPC": f"localhost:{port}", **env}) == "operators"
        with pytest.raises(Refusal, match="unavailable"):
            await _name_of({"OA_CONTROL_GRPC": f"localhost:{port}"})
        with pytest.raises(Refusal, match=r"\(Hostname Verification Check failed\); see to OA_CONTROL_GRPC$"):
            await _name_of({"OA_CONTROL_GRPC": f"127.0.0.1:{port}", **env})
        with pytest.raises(Refusal, match="name all replicas by one DNS name"):
            await _name_of({"OA_CONTROL_GRPC": f"127.0.0.1:{port},127.0.0.2:{port}", **env})
        other = tmp_path / "other"
        other.mkdir()
        strange = env | {"OA_TLS_CA_FILE": str(Authority().write(other))}
        with pytest.raises(Refusal, match=r"\(unable to get local issuer certificate\); see to OA_CONTROL_GRPC$"):
            await _name_of({"OA_CONTROL_GRPC": f"localhost:{port}", **strange})


def test_what_was_verified_of_one_installation_is_not_held_against_another(tmp_path: Path) -> None:
    """Whatever form the address has, each control has a file of its own."""
    controls = ("127.0.0.1:9080", "dns:///a.test:9080", "b.test:9080", "b.test:9081", "10.0.0.1:9080,10.0.0.2:9080")
    for control in controls:
        env = {"OA_CLIENT_HOME": str(tmp_path), "OA_CONTROL_GRPC": control}
        assert operators_audit_heads(env).load() == {}
        asyncio.run(operators_audit_heads(env).keep("org_1", AuditHead(1, bytes(32)), None))
    assert len(list(tmp_path.rglob("audit-heads.json"))) == len(controls)


async def test_nothing_is_said_in_the_clear_to_elsewhere_unless_that_is_allowed() -> None:
    elsewhere = {"OA_CONTROL_GRPC": "control.invalid:9080"}
    with pytest.raises(Refusal, match="isn't loopback") as refused:
        await _name_of(elsewhere)
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", "OA_TLS_CERT_FILE")
    with pytest.raises(Refusal, match="unavailable"):
        await _name_of({**elsewhere, "OA_ALLOW_PLAINTEXT": "true"})


async def test_where_a_local_stack_would_be_it_says_how_to_start_one() -> None:
    with pytest.raises(Refusal, match="see to OA_CONTROL_GRPC, or start a local stack with `oa up`"):
        await _name_of({"OA_PORT_BASE": str(free_port(tuple(PORT_OFFSETS.values())))})
    with pytest.raises(Refusal, match=r"see to OA_CONTROL_GRPC$"):
        await _name_of({"OA_CONTROL_GRPC": "127.0.0.1:9"})


@pytest.mark.parametrize("missing", ["CERT", "KEY", "CA"])
async def test_a_file_that_is_not_there_is_named(missing: str, tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue().write(tmp_path)
    files = {"CERT": certificate, "KEY": key, "CA": authority.write(tmp_path), missing: tmp_path / "none"}
    with pytest.raises(Refusal, match="can't be read") as refused:
        await _name_of({f"OA_TLS_{what}_FILE": str(file) for what, file in files.items()})
    assert refused.value.field == f"OA_TLS_{missing}_FILE"


class _Nothing:
    """An installation in which nothing has happened."""

    def ListInstallationAuditEvents(self, _request: Any, _context: Any) -> Any:
        return audit_pb.ListInstallationAuditEventsResponse()

    def ListInstallationOrgs(self, _request: Any, _context: Any) -> Any:
        return org_pb.ListInstallationOrgsResponse()

    def ListInstallationSessions(self, _request: Any, _context: Any) -> Any:
        return session_pb.ListInstallationSessionsResponse()

    ReadInstallationAuditLog = GetInstallationOrg = RestoreInstallationOrg = RevokeInstallationSessions = (
        ListInstallationAuditEvents
    )
    SetInstallationOrgOwner = ListInstallationAuditEvents


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "list"), "No event."),
        (("org", "list"), "No org."),
        (("session", "list", "ada@example.org"), "No session. Those that were revoked: --all"),
        (("session", "list", "ada@example.org", "--all"), "No session."),
    ],
)
def test_a_list_without_rows_says_so(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    nothing = cast("Any", _Nothing())
    add_InstallationAuditServiceServicer_to_server(nothing, server)
    add_InstallationOrgServiceServicer_to_server(nothing, server)
    add_InstallationSessionServiceServicer_to_server(nothing, server)
    monkeypatch.setenv("OA_CONTROL_GRPC", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    monkeypatch.setenv("OA_OPERATOR_TOKEN", TOKEN)
    server.start()
    try:
        assert run(("admin", *arguments)) == Exit.OK
    finally:
        server.stop(None).wait()
    assert capfd.readouterr() == ("", f"{said}\n")
