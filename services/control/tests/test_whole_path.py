"""The way that every client goes: code, session, service account, worker token, sync token, run."""

from __future__ import annotations

import jwt
from google.protobuf import json_format

from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.system.clock import SystemClock
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2
from services.control.tests.harness import Control, reason_of

RUN = {"idempotencyKey": "k1", "spec": {"adapter": "exec", "exec": {"argv": ["git", "log"]}}}


async def test_a_person_signs_in_attaches_a_worker_starts_a_run_and_may_watch_it(control: Control) -> None:
    signed_in = await control.sign_in("Ada@Example.org")
    token, user_id, org_id = signed_in["tokens"]["accessToken"], signed_in["userId"], signed_in["orgId"]
    assert signed_in["newUser"] is True

    caller = await control.ok("control.SessionService/GetCaller", {}, token)
    assert caller["email"] == "ada@example.org"
    assert caller["principal"]["subject"] == user_id
    assert caller["khalaUrl"].startswith("ws://127.0.0.1:")

    account = await control.ok("control.ServiceAccountService/CreateServiceAccount", {"name": "laptop"}, token)
    exchange = {"apiKey": account["apiKey"], "use": "TOKEN_USE_WORKER"}
    worker = await control.ok("control.ServiceAccountService/ExchangeKey", exchange)
    verifier = TokenVerifier(StaticKeys([control.key.public_key]), SystemClock())
    worker_claims = await verifier.verify(worker["token"], claims_pb2.WorkerTokenClaims, audience="runtime")
    assert worker_claims.kind == principal_pb2.PRINCIPAL_KIND_WORKER
    assert worker_claims.sub == account["serviceAccount"]["serviceAccountId"]
    assert list(worker_claims.scopes) == ["workers.attach"]
    assert worker["runtimeGrpcAddress"].endswith(str(control.grpc_port + 1))

    run = (await control.ok("runtime.RunService/CreateRun", RUN, token))["run"]
    assert (run["userId"], run["orgId"]) == (user_id, org_id)
    assert control.runtime.callers[0].session_id == signed_in["sessionId"]

    topics = [f"run:{run['runId']}:events", f"user:{user_id}:runs"]
    minted = await control.ok("control.SyncTokenService/MintSyncToken", {"topics": topics, "surface": "cli"}, token)
    assert [grant["granted"] for grant in minted["grants"]] == [True, True]
    sync = await verifier.verify(minted["token"], claims_pb2.SyncTokenClaims, audience="khala")
    assert list(sync.topics) == topics
    assert list(sync.scopes) == ["runs.read"]
    assert (sync.sub, sync.org_id, sync.session_id) == (user_id, org_id, signed_in["sessionId"])
    assert sync.exp - sync.iat == 300
    assert sync.surface == "cli"
    unknown = {"topics": topics, "surface": "watch"}
    refused = await control.call("control.SyncTokenService/MintSyncToken", unknown, token)
    assert reason_of(refused) == "invalid_value"


async def test_refreshed_tokens_go_on_where_the_old_ones_stopped(control: Control) -> None:
    signed_in = await control.sign_in()
    refresh = {"refreshToken": signed_in["tokens"]["refreshToken"], "deviceId": signed_in["deviceId"]}
    tokens = (await control.ok("control.AuthService/RefreshSession", refresh))["tokens"]
    assert tokens["refreshToken"] != refresh["refreshToken"]
    caller = await control.ok("control.SessionService/GetCaller", {}, tokens["accessToken"])
    assert caller["principal"]["sessionId"] == signed_in["sessionId"]


async def test_the_published_keys_verify_what_was_signed(control: Control) -> None:
    response = await control.http.get("/.well-known/jwks.json")
    assert response.headers["cache-control"] == "public, max-age=300"
    keys = jwt.PyJWKSet.from_dict(response.json())
    token = await control.access_token()
    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, keys[kid].key, algorithms=["EdDSA"], audience="openagents-edge")
    message = json_format.ParseDict(claims, claims_pb2.AccessTokenClaims())
    assert message.iss == "openagents-control"
