"""The other doors: gRPC inside, a foreign Connect client, e-mail."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path

import grpc.aio
import pytest

from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import PRINCIPAL_KEY, SERVICE_TOKEN_KEY
from oa_platform.auth.tokens import sign_token
from oa_platform.health.failures import refusal_from_rpc_error
from oa_testing.postgres import REPOSITORY, free_port
from oa_testing.waiting import PATIENCE_S
from openagents.control.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    claims_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
)
from services.control.app.mailers import SMTP_CONCURRENCY, ConsoleMailer, SmtpMailer, SmtpRelay
from services.control.domain.claims import principal_claims, principal_of
from services.control.grpc_api.tokens import JwtSigner
from services.control.tests.harness import CONTROL_TOKEN, GATEWAY_TOKEN, Control, new_id

BUF = Path(sys.executable).parent / "buf"
EXPIRES = datetime(2026, 1, 1, 12, 10, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------- gRPC


async def caller_over_grpc(control: Control, *metadata: tuple[str, str]) -> session_service_pb2.GetCallerResponse:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{control.grpc_port}") as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        try:
            return await stub.GetCaller(session_service_pb2.GetCallerRequest(), metadata=metadata, timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            raise refusal_from_rpc_error(error) from None


async def test_the_same_use_cases_stand_behind_grpc(control: Control) -> None:
    token = await control.access_token()
    own = await control.ok("control.SessionService/GetCaller", {}, token)
    now = datetime.now(UTC)
    found = own["principal"]
    claims = {"sub": found["subject"], "org_id": found["orgId"], "session_id": found["sessionId"]}
    principal = principal_of(found | claims | {"device_id": found["deviceId"]})
    signed = JwtSigner(control.key).sign(principal_claims(principal, "control", "tok_1", now))
    identity = ((SERVICE_TOKEN_KEY, CONTROL_TOKEN), (PRINCIPAL_KEY, signed))
    answer = await caller_over_grpc(control, *identity)
    assert answer.email == "ada@example.org"
    await control.ok("control.SessionService/RevokeSession", {}, token)
    with pytest.raises(Refusal, match="token_revoked"):
        await caller_over_grpc(control, *identity)


async def test_grpc_asks_everybody_who_they_are(control: Control) -> None:
    for metadata in ((), ((SERVICE_TOKEN_KEY, "guessed"),), ((SERVICE_TOKEN_KEY, GATEWAY_TOKEN),)):
        with pytest.raises(Refusal, match="service_not_accepted"):
            await caller_over_grpc(control, *metadata)
    with pytest.raises(Refusal, match="missing_authorization"):
        await caller_over_grpc(control, (SERVICE_TOKEN_KEY, CONTROL_TOKEN))


async def test_a_principal_token_for_another_service_is_not_taken(control: Control) -> None:
    claims = claims_pb2.PrincipalClaims(
        iss="openagents-control", sub="usr_1", aud="runtime", iat=1, nbf=1, exp=2**31, jti="t", org_id="org_1"
    )
    identity = ((SERVICE_TOKEN_KEY, CONTROL_TOKEN), (PRINCIPAL_KEY, sign_token(claims, control.key)))
    with pytest.raises(Refusal, match="invalid_token"):
        await caller_over_grpc(control, *identity)


async def test_public_methods_need_a_service_inside(control: Control) -> None:
    request = auth_service_pb2.StartChallengeRequest(email="ada@example.org", device_id=new_id("dev"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{control.grpc_port}") as channel:
        stub = auth_service_pb2_grpc.AuthServiceStub(channel)
        metadata = ((SERVICE_TOKEN_KEY, GATEWAY_TOKEN),)
        assert (await stub.StartChallenge(request, metadata=metadata)).challenge_id.startswith("chl_")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.StartChallenge(request)


# ------------------------------------------------------------------------------------------------- a foreign client


async def buf_curl(control: Control, method: str, body: object, *arguments: str) -> tuple[int, str, str]:
    """Call with buf's own Connect client, which knows the contract from proto/ and nothing of this code."""
    process = await asyncio.create_subprocess_exec(
        str(BUF), "curl", "--protocol", "connect", "--schema", str(REPOSITORY / "proto"), "--data", json.dumps(body),
        *arguments, f"{control.base_url}/{method}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"BUF_CACHE_DIR": str(control.mail_file.parent / "buf")},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed beside this Python")
async def test_a_foreign_connect_client_gets_on_with_the_edge(control: Control) -> None:
    start = "openagents.control.v1.AuthService/StartChallenge"
    code, out, err = await buf_curl(control, start, {"email": "ada@example.org", "deviceId": new_id("dev")})
    assert code == 0, err
    assert json.loads(out)["challengeId"].startswith("chl_")

    token = await control.access_token("bob@example.org")
    caller = "openagents.control.v1.SessionService/GetCaller"
    code, out, err = await buf_curl(control, caller, {}, "--header", f"authorization: Bearer {token}")
    assert code == 0, err
    assert json.loads(out)["email"] == "bob@example.org"

    code, out, err = await buf_curl(control, caller, {})
    assert code != 0
    assert json.loads(err)["code"] == "unauthenticated", "it read our error as a Connect error"
    assert "missing_authorization" in err, "and decoded its detail"


# ------------------------------------------------------------------------------------------------- e-mail


async def test_the_console_writes_codes_where_only_the_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "mail.jsonl"
    mailer = ConsoleMailer(file)
    for code in ("00000001", "00000002"):
        await mailer.send_code("ada@example.org", code, EXPIRES)
    assert [json.loads(line)["code"] for line in file.read_text().splitlines()] == ["00000001", "00000002"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_file_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="unavailable"):
        await ConsoleMailer(tmp_path / "nowhere" / "mail.jsonl").send_code("ada@example.org", "00000001", EXPIRES)


@asynccontextmanager
async def relay(
    port: int,
    received: list[bytes],
    greeting: bytes = b"220 relay\r\n",
    *,
    together: int = 1,
    most: list[int] | None = None,
) -> AsyncIterator[None]:
    """As much of an SMTP server as a client needs to see (RFC 5321). `most` notes how many clients there are.

    It greets nobody before `together` of them have come, and those who come then have to wait a little.
    """
    enough = asyncio.Event()
    clients: set[asyncio.StreamWriter] = set()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(writer)
        if most is not None:
            most.append(len(clients))
        if len(clients) >= together:
            enough.set()
        await enough.wait()
        if together > 1:
            await asyncio.sleep(0.1)
        writer.write(greeting)
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                received.append(await reader.readuntil(b"\r\n.\r\n"))
            if verb == b"QUIT":
                clients.discard(writer)
            writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            await writer.drain()
            if verb == b"QUIT":
                break
        clients.discard(writer)
        writer.close()

    server = await asyncio.start_server(session, "127.0.0.1", port)
    async with server:
        yield


def smtp(port: int) -> SmtpMailer:
    return SmtpMailer(
        SmtpRelay(host="127.0.0.1", port=port, sender="codes@example.org", tls="none", timeout_s=PATIENCE_S)
    )


async def test_a_code_goes_through_a_relay() -> None:
    received: list[bytes] = []
    port = free_port()
    async with relay(port, received):
        await smtp(port).send_code("ada@example.org", "12345678", EXPIRES)
    mail = message_from_bytes(received[0])
    assert (mail["To"], mail["From"]) == ("ada@example.org", "codes@example.org")
    assert "12345678" in str(mail.get_payload())
    assert "12345678" not in str(mail["Subject"])


@pytest.mark.parametrize("greeting", [b"554 no\r\n", b"\xff\xff\r\n", None])
async def test_a_relay_that_is_away_or_says_no_is_a_refusal(greeting: bytes | None) -> None:
    port = free_port()
    if greeting is None:
        with pytest.raises(Refusal, match="unavailable"):
            await smtp(port).send_code("ada@example.org", "12345678", EXPIRES)
        return
    async with relay(port, [], greeting):
        with pytest.raises(Refusal, match="unavailable"):
            await smtp(port).send_code("ada@example.org", "12345678", EXPIRES)


async def test_few_codes_are_on_their_way_to_the_relay_at_a_time() -> None:
    received: list[bytes] = []
    most: list[int] = []
    port = free_port()
    async with relay(port, received, together=SMTP_CONCURRENCY, most=most):
        mailer = smtp(port)
        sending = [mailer.send_code(f"p{number}@example.org", "12345678", EXPIRES) for number in range(20)]
        await asyncio.gather(*sending)
    assert len(received) == 20
    assert max(most) == SMTP_CONCURRENCY
