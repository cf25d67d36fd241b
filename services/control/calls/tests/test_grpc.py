"""The gRPC door inside."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import grpc.aio
import pytest

from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import PRINCIPAL_KEY, SERVICE_TOKEN_KEY
from oa_platform.auth.tokens import sign_token
from oa_platform.health.failures import refusal_from_rpc_error
from oa_testing.waiting import PATIENCE_S
from openagents.control.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    claims_pb2,
    revocation_service_pb2,
    revocation_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from services.control.tests.harness import CONTROL_TOKEN, GATEWAY_TOKEN, Control, new_id
from services.control.tokens.domain import principal_claims, principal_of
from services.control.tokens.door import JwtSigner


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


async def test_services_that_take_tokens_hear_what_was_revoked_and_nobody_else_does(control: Control) -> None:
    signed_in = await control.sign_in()
    request = revocation_service_pb2.WatchRevocationsRequest()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{control.grpc_port}") as channel:
        watch = revocation_service_pb2_grpc.RevocationServiceStub(channel).WatchRevocations
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watch(request, metadata=((SERVICE_TOKEN_KEY, CONTROL_TOKEN),)).read()
        assert refusal_from_rpc_error(refused.value).reason == "caller_not_allowed"

        call: Any = watch(request, metadata=((SERVICE_TOKEN_KEY, GATEWAY_TOKEN),), timeout=PATIENCE_S)
        assert await call.read() == revocation_service_pb2.WatchRevocationsResponse(caught_up=True)
        await control.ok("control.SessionService/RevokeSession", {}, signed_in["tokens"]["accessToken"])
        while not (response := await call.read()).revocations:
            assert response.caught_up
        (revocation,) = response.revocations
        assert (revocation.position, response.position, response.caught_up) == (1, 1, True)
        assert (revocation.reason, revocation.HasField("issued_before")) == ("user_requested", False)
        caller = await control.ok("control.SessionService/ListSessions", {}, await control.access_token())
        assert revocation.session_id in {session["sessionId"] for session in caller["sessions"]}
        call.cancel()
