"""PolicyService: each denial says by which rule, and the internal port gives the answers that the edge gives."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import jwt
import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_client.cpython.operators.policy import PolicyOperators, Question
from oa_platform.auth.authenticator import SERVICE_TOKEN_KEY
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import policy_service_pb2 as pb
from openagents.control.v1.policy_service_pb2_grpc import PolicyServiceStub
from services.control.policy.domain import ROLE_SCOPES, SERVICE_ACCOUNT_SCOPES, Role, Scope
from services.control.tests.harness import (
    CONTROL_TOKEN,
    GATEWAY_TOKEN,
    LOOPBACK,
    OPERATOR_TOKEN,
    Control,
    new_id,
    reason_of,
)

Ask = Callable[..., Awaitable[pb.AuthorizeResponse]]
CREATE_RUN = "runtime.RunService/CreateRun"
CREATE_KEY = "control.ApiKeyService/CreateApiKey"
REVOKE_ALL = "control.SessionService/RevokeSessions"


@pytest_asyncio.fixture
async def ask(control: Control) -> AsyncIterator[Ask]:
    """Asks for whoever has a token: `ask(token, required_scope=…)`."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{control.grpc_port}") as channel:
        stub: Any = PolicyServiceStub(channel)

        async def authorize(token: str, by: str = GATEWAY_TOKEN, **action: Any) -> pb.AuthorizeResponse:
            claims = jwt.decode(token, options={"verify_signature": False})
            names = ("kind", "org_id", "scopes", "session_id", "device_id")
            who: dict[str, Any] = {name: claims.get(name) for name in names}
            principal = principal_pb2.Principal(subject=claims["sub"], **who)
            request = pb.AuthorizeRequest(principal=principal, **action)
            answer = await stub.Authorize(request, metadata=((SERVICE_TOKEN_KEY, by),))
            assert isinstance(answer, pb.AuthorizeResponse)
            return answer

        yield authorize


async def _program(control: Control, person: str, *scopes: str) -> str:
    """The access token of a personal access token with these scopes."""
    body = {"name": "n", "scopes": scopes, "ttlSeconds": 3600}
    key = (await control.ok(CREATE_KEY, body, person))["apiKey"]
    body = {"apiKey": key, "use": "TOKEN_USE_EDGE"}
    return str((await control.ok("control.ServiceAccountService/ExchangeKey", body))["token"])


async def test_each_denial_names_its_rule_and_is_that_of_the_edge(control: Control, ask: Ask) -> None:
    person = await control.access_token()
    org = jwt.decode(person, options={"verify_signature": False})["org_id"]
    allowed = await ask(person, required_scope="runs.write", owner_org_id=org)
    assert (allowed.allowed, allowed.reason, allowed.rule) == (True, "", pb.POLICY_RULE_UNSPECIFIED)
    assert "runs.write" in allowed.scopes
    program = await _program(control, person, "runs.read")

    narrow = await ask(program, required_scope="runs.write")
    assert (narrow.allowed, narrow.rule, list(narrow.scopes)) == (False, pb.POLICY_RULE_TOKEN_SCOPE, ["runs.read"])
    assert narrow.reason == reason_of(await control.call(CREATE_RUN, {}, program))
    session = await ask(program, session_only=True)
    assert session.rule == pb.POLICY_RULE_SESSION
    assert session.reason == reason_of(await control.call(REVOKE_ALL, {}, program))
    role = await ask(person, required_scope="workers.attach")
    assert role.rule == pb.POLICY_RULE_TOKEN_SCOPE, "no role gives it, so no token of a person carries it"
    for owner in ({"owner_org_id": new_id("org")}, {"owner_user_id": new_id("usr")}):
        foreign = await ask(person, required_scope="runs.read", **owner)
        assert (foreign.reason, foreign.rule) == ("owner_mismatch", pb.POLICY_RULE_OWNER)

    await control.ok(REVOKE_ALL, {}, person)
    ended = await ask(person, required_scope="runs.read")
    assert (ended.rule, list(ended.scopes)) == (pb.POLICY_RULE_STANDING, [])
    assert ended.reason == reason_of(await control.call(CREATE_RUN, {}, person)) == "token_revoked"


async def test_an_operator_is_told_why(control: Control) -> None:
    token = await control.access_token()
    claims = jwt.decode(token, options={"verify_signature": False})
    mine = Question(claims["sub"], claims["org_id"], claims["session_id"], "runs.write", ["runs.write"])
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{control.grpc_port}") as channel:
        operator = PolicyOperators(channel, OPERATOR_TOKEN)
        assert (await operator.explain(replace(mine, owner=claims["org_id"]))).allowed
        assert (await operator.explain(replace(mine, owner=new_id("usr")))).rule == "owner"
        assert (await operator.explain(replace(mine, scope="audit.read"))).rule == "token_scope"
        assert (await operator.explain(replace(mine, session_id=new_id("ses")))).rule == "standing"
        with pytest.raises(Refusal, match="invalid_value") as refused:
            await operator.explain(replace(mine, subject="ada"))
        assert refused.value.field == "subject"


def test_the_page_for_operators_has_every_scope_with_its_roles() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "operations" / "policy.md").read_text("utf-8")
    shown = {row[1]: row[2] for row in re.finditer(r"^\| `([a-z_.]+)` \| [^|]+ \| ([^|]+) \|$", page, re.M)}
    assert set(shown) == set(Scope)
    for scope in Scope:
        roles = {role for role, scopes in ROLE_SCOPES.items() if scope in scopes}
        said = set(Role) if "every role" in shown[scope] else {role for role in Role if role in shown[scope]}
        assert said == roles, scope
        assert ("service accounts" in shown[scope]) == (scope in SERVICE_ACCOUNT_SCOPES), scope


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ({"required_scope": "runs.destroy"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"required_scope": "runs.read", "session_only": True}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"fresh_sign_in": True}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"owner_user_id": "usr_1", "owner_org_id": "org_1"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"by": CONTROL_TOKEN}, grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_what_is_no_question_is_refused(
    control: Control, ask: Ask, action: dict[str, Any], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(await control.access_token(), **action)
    assert refused.value.code() is code
