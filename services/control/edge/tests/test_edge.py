"""The edge over real sockets: what it refuses, how it says so, and that it goes on."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from google.rpc import error_details_pb2

from oa_platform.auth.keys import generate_key
from oa_platform.auth.tokens import sign_token
from oa_platform.health.clock_watch import CLOCK_HEADER
from oa_platform.system.clock import SystemClock
from oa_testing.clock import SkewedClock
from oa_testing.locks import until_lock_waits
from oa_testing.postgres import Database
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import auth_service_pb2, claims_pb2, session_service_pb2
from services.control.edge.door.methods import open_methods
from services.control.tests.harness import Control, field_of, new_id, raw, reason_of, running_control

START = "control.AuthService/StartChallenge"
CALLER = "control.SessionService/GetCaller"
CREATE_RUN = "runtime.RunService/CreateRun"
RUN = {"idempotencyKey": "k1", "spec": {"adapter": "exec", "exec": {"argv": ["git", "log"]}}}
GOOD = {"email": "ada@example.org", "deviceId": "dev_01JD8V0000000000000000000A"}


# ------------------------------------------------------------------------------------------------- bodies


BAD_JSON = [
    (b"", "malformed_message", ""),
    (b"{", "malformed_message", ""),
    (b"[]", "malformed_message", ""),
    (b"null", "malformed_message", ""),
    (b'"text"', "malformed_message", ""),
    (b"\xff\xfe{}", "malformed_message", ""),
    (b"[" * 5000, "malformed_message", ""),
    (b'{"a":' * 5000, "malformed_message", ""),
    (b'{"email": "a@b.org", "email": "c@d.org"}', "malformed_message", ""),
    (b'{"email": 7}', "malformed_message", "email"),
    (b'{"email": ["a@b.org"]}', "malformed_message", "email"),
    (b'{"email": {"a": 1}}', "malformed_message", "email"),
    (b'{"email": "\\ud800@b.org"}', "malformed_message", "email"),
    (b'{"email": "a@b.org", "deviceId": true}', "malformed_message", "device_id"),
    (b'{"email": "a@b.org", "colour": "red"}', "malformed_message", ""),
    (b"{}", "missing_field", "email"),
    (b'{"email": null}', "missing_field", "email"),
    (b'{"email": "ada", "deviceId": "dev_01JD8V0000000000000000000A"}', "invalid_value", "email"),
    (b'{"email": "ada@example.org"}', "missing_field", "device_id"),
    (b'{"email": "ada@example.org", "deviceId": "dev_1"}', "invalid_value", "device_id"),
]


async def test_bad_json_is_refused_with_the_field(control: Control, subtests: pytest.Subtests) -> None:
    for body, reason, field in BAD_JSON:
        with subtests.test(body=str(body)[:60]):
            response = await control.call(START, body)
            assert (response.status_code, reason_of(response), field_of(response)) == (400, reason, field)
            assert response.json()["code"] == "invalid_argument"
    assert (await control.call(START, GOOD)).status_code == 200


BAD_SPECS = [
    ({"adapter": "exec", "exec": {"argv": "git"}}, "malformed_message", "spec.exec.argv"),
    ({"adapter": "exec", "exec": {"cmd": "git"}}, "malformed_message", "spec.exec"),
    ({"adapter": "exec", "exec": {}, "prompt": {}}, "malformed_message", "spec"),
    ("exec", "malformed_message", "spec"),
    ({"labels": {"a": 1}}, "malformed_message", "spec.labels"),
]


async def test_a_forwarded_json_body_is_refused_here_with_the_whole_path(
    control: Control, subtests: pytest.Subtests
) -> None:
    for spec, reason, field in BAD_SPECS:
        with subtests.test(spec=str(spec)[:60]):
            response = await control.call(CREATE_RUN, RUN | {"spec": spec}, await control.access_token())
            assert (response.status_code, reason_of(response)) == (400, reason)
            assert field_of(response) == field
            assert not control.runtime.runs


async def test_a_forwarded_body_is_judged_by_its_owner(control: Control) -> None:
    response = await control.call(CREATE_RUN, {"idempotencyKey": "k"}, await control.access_token())
    assert (response.status_code, reason_of(response), field_of(response)) == (400, "missing_field", "spec")


async def test_errors_never_echo_what_was_sent(control: Control) -> None:
    secret = "s3cr3t-value"
    for body in (
        {"email": secret},
        {"email": {"x": secret}},
        {secret: 1},
        {"email": "a@b.org", "deviceId": {secret: 1}},
        {"email": 1.5e300, "deviceId": secret},
    ):
        response = await control.call(START, body)
        assert response.status_code == 400
        assert secret not in response.text
    labels = RUN | {"spec": {"adapter": "exec", "exec": {"argv": ["x"]}, "labels": {secret: 7}}}
    response = await control.call(CREATE_RUN, labels, await control.access_token())
    assert (response.status_code, field_of(response)) == (400, "spec.labels")
    assert secret not in response.text


@pytest.mark.parametrize("content_type", ["application/proto", "application/proto; charset=utf-8"])
async def test_protobuf_bodies_are_spoken_too(control: Control, content_type: str) -> None:
    request = auth_service_pb2.StartChallengeRequest(email=GOOD["email"], device_id=GOOD["deviceId"])
    response = await control.call(START, request.SerializeToString(), content_type=content_type)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/proto"
    answer = auth_service_pb2.StartChallengeResponse.FromString(response.content)
    assert answer.resend_after_ms == 60_000


BAD_PROTOBUF = [b"\xff", b"\x0a\xff", b"\x0a\x02a", b"\x0a\x01\xff"]


async def test_bad_protobuf_is_refused(control: Control, subtests: pytest.Subtests) -> None:
    for body in BAD_PROTOBUF:
        with subtests.test(body=str(body)[:60]):
            response = await control.call(START, body, content_type="application/proto")
            assert (response.status_code, reason_of(response)) == (400, "malformed_message")
            assert response.headers["content-type"] == "application/json"


OTHER_MEDIA_TYPES = ["", "text/plain", "application/jsonx", "application/json; charset=latin-1", "application/grpc"]


async def test_other_media_types_are_refused(control: Control, subtests: pytest.Subtests) -> None:
    for content_type in OTHER_MEDIA_TYPES:
        with subtests.test(content_type=str(content_type)[:60]):
            response = await control.call(START, GOOD, content_type=content_type)
            assert (response.status_code, reason_of(response)) == (415, "unsupported_media_type")


async def test_gzip_in_and_out(control: Control) -> None:
    packed = gzip.compress(json.dumps(GOOD).encode())
    assert (await control.call(START, packed, content_encoding="gzip")).status_code == 200
    token = await control.access_token("bob@example.org")
    for _ in range(12):
        await control.ok("control.ServiceAccountService/CreateServiceAccount", {"name": "x" * 90}, token)
    listed = await control.call("control.ServiceAccountService/ListServiceAccounts", {}, token)
    assert listed.headers["content-encoding"] == "gzip"
    assert len(listed.json()["serviceAccounts"]) == 12


BAD_PACKING = [
    (b"{}", "gzip", 400, "malformed_message"),
    (gzip.compress(b"{}")[:-4], "gzip", 400, "malformed_message"),
    (gzip.compress(b"{}") + b"more", "gzip", 400, "malformed_message"),
    (gzip.compress(b" " * (1 << 20) + b"{}"), "gzip", 413, "request_too_large"),
    (b"{}", "br", 501, "unsupported_encoding"),
    (b"{}", "gzip, gzip", 501, "unsupported_encoding"),
]


async def test_bad_packing_is_refused(control: Control, subtests: pytest.Subtests) -> None:
    for body, encoding, status, reason in BAD_PACKING:
        with subtests.test(body=str(body)[:60]):
            response = await control.call(START, body, content_encoding=encoding)
            assert (response.status_code, reason_of(response)) == (status, reason)
            if status == 501:
                assert (response.json()["code"], response.headers["accept-encoding"]) == (
                    "unimplemented",
                    "identity, gzip",
                )
                assert "identity, gzip" in response.json()["message"]


@pytest.mark.parametrize("extra", [0, 1])
async def test_the_largest_body_is_the_largest(control: Control, extra: int) -> None:
    body = json.dumps(GOOD).encode().ljust((1 << 20) + extra)
    response = await control.call(START, body)
    assert response.status_code == (413 if extra else 200)


async def test_a_body_of_unknown_length_is_refused_at_the_limit(control: Control) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 65536

    headers = {"content-type": "application/json"}
    path = "/openagents.control.v1.AuthService/StartChallenge"
    response = await control.http.post(path, content=endless(), headers=headers)
    assert (response.status_code, reason_of(response)) == (413, "request_too_large")


# ------------------------------------------------------------------------------------------------- methods


async def test_get_is_no_way_to_call(control: Control) -> None:
    for verb in ("GET", "PUT", "DELETE", "HEAD", "PATCH"):
        response = await control.http.request(verb, "/openagents.control.v1.AuthService/StartChallenge")
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
    assert (await control.http.post("/.well-known/jwks.json")).headers["allow"] == "GET, HEAD"


CLOSED_PATHS = [
    "/",
    "/favicon.ico",
    "/openagents.control.v1.AuthService",
    "/openagents.control.v1.AuthService/",
    "/openagents.control.v1.AuthService/startchallenge",
    "/openagents.control.v1.AuthService/StartChallenge/",
    "//openagents.control.v1.AuthService/StartChallenge",
    "/openagents.control.v1.AuthService%2FStartChallenge",
    "/openagents.control.v1.AuthService/%53tartChallenge",
    "/%2fopenagents.control.v1.AuthService/StartChallenge",
    "/openagents.runtime.v1.LogService/TailLog",
    "/openagents.runtime.v1.LogService/DescribeLog",
    "/openagents.runtime.v1.WorkerService/AppendEvents",
    "/openagents.projection.v1.ReadService/ListCheckpoints",
    "/grpc.health.v1.Health/Check",
]


async def test_what_the_contract_does_not_open_is_not_there(control: Control, subtests: pytest.Subtests) -> None:
    for path in CLOSED_PATHS:
        with subtests.test(path=str(path)[:60]):
            headers = {"content-type": "application/json"}
            response = await control.http.post(path, content=b"{}", headers=headers)
            assert (response.status_code, reason_of(response)) == (404, "unknown_method")
            assert response.json()["code"] == "unimplemented"


async def test_every_open_method_asks_for_what_the_contract_says(control: Control) -> None:
    public = ("Challenge", "RefreshSession", "ExchangeKey", "ProviderSignIn")
    for name in open_methods():
        response = await control.http.post(f"/{name}", content=b"{}", headers={"content-type": "application/json"})
        if name.endswith("/ListProviders"):
            assert (response.status_code, response.json()) == (200, {}), "there are none here"
        elif name.endswith(public):
            assert reason_of(response) == "missing_field", name
        else:
            assert (response.status_code, reason_of(response)) == (401, "missing_authorization"), name


# ------------------------------------------------------------------------------------------------- who calls


async def test_tokens_that_are_none_are_refused(control: Control) -> None:
    token = await control.access_token()
    head, payload, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed["sub"] = new_id("usr")
    forged = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    none_head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    for bad in ("x", f"{head}.{forged}.{signature}", f"{none_head}.{payload}.", f"{head}.{payload}.", "a.b.c"):
        response = await control.call(CALLER, {}, bad)
        assert (response.status_code, reason_of(response)) == (401, "invalid_token"), bad
    for header in ("Basic YTpi", "Bearer", token, "Bearer a b"):
        response = await control.call(CALLER, {}, authorization=header)
        assert (response.status_code, reason_of(response)) == (401, "invalid_authorization_scheme"), header
    once = ("authorization", f"Bearer {token}")
    for twice in ([once, once], [once, ("authorization", "Basic YTpi")]):
        path = "/openagents.control.v1.SessionService/GetCaller"
        response = await control.http.post(path, content=b"{}", headers=[("content-type", "application/json"), *twice])
        assert (response.status_code, reason_of(response)) == (401, "invalid_authorization_scheme"), twice


async def test_an_expired_a_foreign_and_a_diverted_token(control: Control) -> None:
    real = jwt.decode(await control.access_token(), options={"verify_signature": False})
    now = int(SystemClock().time())

    def token(key: object = control.key, **changes: object) -> str:
        kind = principal_pb2.PRINCIPAL_KIND_USER
        claims = claims_pb2.AccessTokenClaims(**(real | {"kind": kind} | changes))
        return sign_token(claims, key)  # type: ignore[arg-type]

    expected = {
        token(): None,
        token(exp=now - 60, iat=now - 120, nbf=now - 120): "token_expired",
        token(nbf=now + 60): "clock_skew",
        token(generate_key()): "invalid_token",
        token(aud="runtime"): "invalid_token",
        token(iss="somebody"): "invalid_token",
        token(session_id=new_id("ses")): "token_revoked",
        token(org_id=new_id("org")): "org_changed",
        token(sub=new_id("usr")): "token_revoked",
    }
    for made, reason in expected.items():
        response = await control.call(CALLER, {}, made)
        assert (reason_of(response) if response.status_code != 200 else None) == reason


async def test_a_token_of_another_kind_is_not_taken(control: Control) -> None:
    token = await control.access_token()
    user = (await control.ok(CALLER, {}, token))["principal"]["subject"]
    sync = await control.ok("control.SyncTokenService/MintSyncToken", {"topics": [f"user:{user}:runs"]}, token)
    assert reason_of(await control.call(CALLER, {}, sync["token"])) == "invalid_token"


async def test_a_scope_that_the_caller_lacks(control: Control) -> None:
    token = await control.access_token()
    made = await control.ok("control.ServiceAccountService/CreateServiceAccount", {"name": "script"}, token)
    exchange = {"apiKey": made["apiKey"], "use": "TOKEN_USE_EDGE"}
    script = (await control.ok("control.ServiceAccountService/ExchangeKey", exchange))["token"]
    response = await control.call("control.ServiceAccountService/CreateServiceAccount", {"name": "more"}, script)
    assert (response.status_code, reason_of(response)) == (403, "missing_scope")
    assert response.json()["code"] == "permission_denied"
    run = await control.ok(CREATE_RUN, RUN, script)
    assert run["run"]["userId"] == made["serviceAccount"]["serviceAccountId"]


async def test_a_revoked_session_is_out_at_once(control: Control) -> None:
    token = await control.access_token()
    assert await control.ok("control.SessionService/RevokeSession", {}, token) == {}
    assert reason_of(await control.call(CALLER, {}, token)) == "token_revoked"


async def test_too_many_codes_say_when_to_come_back(control: Control) -> None:
    await control.ok(START, GOOD)
    response = await control.call(START, GOOD)
    assert (response.status_code, reason_of(response)) == (429, "rate_limited")
    assert 55 <= int(response.headers["retry-after"]) <= 60


# ------------------------------------------------------------------------------------------------- behind the edge


async def test_the_owners_refusal_comes_through_whole(control: Control) -> None:
    body = {"runId": new_id("run")}
    response = await control.call("runtime.RunService/CancelRun", body, await control.access_token())
    assert (response.status_code, reason_of(response)) == (429, "publish_rate_limited")
    assert response.headers["retry-after"] == "2"
    detail = response.json()["details"][0]
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(detail["value"] + "=="))
    assert (info.reason, dict(info.metadata)) == (
        "publish_rate_limited",
        {"current_seq": "7", "field": "reason"},
    )
    missing = await control.call("runtime.RunService/GetRun", body, await control.access_token("bob@example.org"))
    assert (missing.status_code, reason_of(missing), field_of(missing)) == (404, "not_found", "run_id")


async def test_clocks_that_differ_are_said_to_be_that_by_readiness_and_by_the_upstream(
    control_database: Database, tmp_path: Path
) -> None:
    # Control's clock is ahead: of Postgres's, which readiness finds, and of runtime's, for which its tokens are of the
    # future. That was "the service runtime can't be reached".
    async with running_control(control_database, tmp_path, clock=SkewedClock(lambda: 30_000)) as control:
        failures = await control.process.readiness.failures()
        assert failures.keys() == {"clock"}
        assert "clock_skew: the clock of control is" in failures["clock"]
        assert "ahead of that of postgres" in failures["clock"]
        stamp = int((await control.http.get("/.well-known/jwks.json")).headers[CLOCK_HEADER])
        assert stamp - time.time() * 1000 > 5_000, "other services hear the time that its tokens have"
        response = await control.call(CREATE_RUN, RUN, await control.access_token())
        assert (response.status_code, reason_of(response)) == (503, "clock_skew")
        assert "the clock of runtime is" in response.json()["message"]
        assert "behind that of control" in response.json()["message"]


async def test_an_upstream_that_is_away_is_unavailable_and_the_edge_goes_on(
    control_database: Database, tmp_path: Path
) -> None:
    async with running_control(control_database, tmp_path, with_runtime=False) as control:
        token = await control.access_token()
        for _ in range(3):
            response = await control.call(CREATE_RUN, RUN, token)
            assert (response.status_code, reason_of(response)) == (503, "unavailable")
            assert response.headers["retry-after"] == "1"
            assert "127.0.0.1" not in response.text
        minting = {"topics": [f"run:{new_id('run')}:events"]}
        response = await control.call("control.SyncTokenService/MintSyncToken", minting, token)
        assert reason_of(response) == "unavailable"
        assert (await control.ok(CALLER, {}, token))["email"] == "ada@example.org"
        assert await control.process.readiness.failures() == {}


async def test_a_database_that_goes_away_is_unavailable_until_it_is_back(control: Control, admin: Any) -> None:
    token = await control.access_token()
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND usename = 'control_app'"
    )
    responses = [await control.call(CALLER, {}, token) for _ in range(20)]
    assert {response.status_code for response in responses} <= {200, 503}
    assert responses[-1].status_code == 200


# ------------------------------------------------------------------------------------------------- headers


async def test_every_answer_has_its_id_and_is_closed_to_browsers(control: Control) -> None:
    for response in (
        await control.call(START, GOOD, x_request_id="mine-1"),
        await control.call(START, b"{", x_request_id="mine-1"),
        await control.http.get("/nothing", headers={"x-request-id": "mine-1"}),
    ):
        assert response.headers["x-request-id"] == "mine-1"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers
    made = await control.call(START, GOOD, x_request_id="not one\t!")
    assert made.headers["x-request-id"].startswith("req_")


async def test_request_id_and_trace_reach_the_service_behind(control: Control) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    token = await control.access_token()
    traceparent = f"00-{trace_id}-b7ad6b7169203331-01"
    await control.call(CREATE_RUN, RUN, token, x_request_id="mine-2", traceparent=traceparent)
    assert control.runtime.metadata[-1]["x-request-id"] == "mine-2"
    assert control.runtime.metadata[-1]["traceparent"].split("-")[1] == trace_id
    assert "authorization" not in control.runtime.metadata[-1], "the caller's own token stays here"


PROTOCOL_HEADERS = [
    ({"connect_protocol_version": "1"}, 200, None),
    ({"connect_protocol_version": "2"}, 426, "unsupported_protocol_version"),
    ({"connect_timeout_ms": "10000"}, 200, None),
    ({"connect_timeout_ms": "9999999999"}, 200, None),
    ({"connect_timeout_ms": "0"}, 504, "deadline_exceeded"),
    ({"connect_timeout_ms": "99999999999"}, 400, "invalid_value"),
    ({"connect_timeout_ms": "-1"}, 400, "invalid_value"),
    ({"connect_timeout_ms": "1e3"}, 400, "invalid_value"),
]


async def test_the_protocols_own_headers(control: Control, subtests: pytest.Subtests) -> None:
    for headers, status, reason in PROTOCOL_HEADERS:
        with subtests.test(headers=str(headers)[:60]):
            body = GOOD | {"email": f"{new_id('usr')}@example.org"}
            response = await control.call(START, body, **headers)
            assert response.status_code == status, response.text
            assert (reason_of(response) if reason else None) == reason


async def test_pages_of_listed_origins_may_call_and_others_may_not(control_database: Database, tmp_path: Path) -> None:
    async with running_control(
        control_database, tmp_path, OA_ALLOWED_ORIGINS="https://app.example.org,http://127.0.0.1:5173"
    ) as control:
        path = "/openagents.control.v1.AuthService/StartChallenge"
        asking = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
        preflight = await control.http.options(path, headers=asking)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://app.example.org"
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        assert "x-oa-client-build" in preflight.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in preflight.headers
        call = await control.call(START, GOOD, origin="http://127.0.0.1:5173")
        assert call.headers["access-control-allow-origin"] == "http://127.0.0.1:5173"
        assert call.headers["access-control-expose-headers"] == "date, x-request-id, retry-after"
        assert "origin" in call.headers["vary"].lower()
        for origin in ("https://evil.example.org", "null", "https://app.example.org.evil.org"):
            for response in (
                await control.call(START, GOOD, origin=origin),
                await control.http.options(path, headers=asking | {"origin": origin}),
            ):
                assert (response.status_code, reason_of(response)) == (403, "origin_not_allowed")
                assert "access-control-allow-origin" not in response.headers


# ------------------------------------------------------------------------------------------------- limits


async def test_a_head_has_a_limit_in_one_piece_and_in_drops(control_database: Database, tmp_path: Path) -> None:
    async with running_control(control_database, tmp_path, OA_HTTP_MAX_HEAD_BYTES="2048") as control:
        response = await control.call(START, GOOD, x_padding="x" * 2048)
        assert (response.status_code, reason_of(response)) == (413, "request_too_large")
        endless = [b"POST / HTTP/1.1\r\nhost: x\r\nx-padding: "] + [b"x" * 512] * 4
        assert (await raw(control, *endless, pause_s=0.01)).startswith(b"HTTP/1.1 431 ")
        assert (await control.call(START, GOOD)).status_code == 200


async def test_a_head_that_does_not_come_is_not_waited_for(control_database: Database, tmp_path: Path) -> None:
    async with running_control(control_database, tmp_path, OA_HTTP_HEAD_TIMEOUT_S="2") as control:
        assert (await raw(control)).startswith(b"HTTP/1.1 408 ")
        assert (await raw(control, b"POST / HTTP/1.1\r\nhost: ")).startswith(b"HTTP/1.1 408 ")
        assert (await control.call(START, GOOD)).status_code == 200
        # A kept connection has the time of its own, and each further head its limit.
        await asyncio.sleep(2.5)
        assert (await control.call(CALLER, {})).status_code == 401


async def test_a_body_that_does_not_come_is_not_waited_for(control_database: Database, tmp_path: Path) -> None:
    async with running_control(control_database, tmp_path, OA_HTTP_BODY_TIMEOUT_S="0.2") as control:
        head = (
            b"POST /openagents.control.v1.AuthService/StartChallenge HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        )
        answer = await raw(control, head)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"deadline_exceeded" in answer


NO_HTTP = [b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET\r\n\r\n"]


async def test_what_is_no_http_gets_no_further(control: Control, subtests: pytest.Subtests) -> None:
    for garbage in NO_HTTP:
        with subtests.test(garbage=str(garbage)[:60]):
            answer = await raw(control, garbage)
            assert answer.startswith(b"HTTP/1.1 400 ")
    assert (await control.call(START, GOOD)).status_code == 200


async def test_more_calls_than_the_limit_are_refused_at_once(
    control_database: Database, tmp_path: Path, admin: Any
) -> None:
    async with running_control(control_database, tmp_path, OA_HTTP_MAX_CALLS="2") as control:
        token = await control.access_token()
        async with admin.transaction():
            await admin.execute("LOCK TABLE control.sessions")
            stuck = [asyncio.create_task(control.call(CALLER, {}, token)) for _ in range(2)]
            await until_lock_waits(admin, 2)
            response = await control.call(CALLER, {}, token)
            assert (response.status_code, reason_of(response)) == (429, "overloaded")
        assert [answer.status_code for answer in await asyncio.gather(*stuck)] == [200, 200]


async def test_a_call_has_the_time_that_it_asks_for(control: Control, admin: Any) -> None:
    token = await control.access_token()
    async with admin.transaction():
        await admin.execute("LOCK TABLE control.sessions")
        response = await control.call(CALLER, {}, token, connect_timeout_ms="200")
        assert (response.status_code, reason_of(response)) == (504, "deadline_exceeded")
    assert (await control.call(CALLER, {}, token)).status_code == 200


async def test_an_answer_of_the_contract_is_strict_json(control: Control) -> None:
    token = await control.access_token()
    body = await control.ok("control.SessionService/ListSessions", {}, token)
    session = body["sessions"][0]
    assert session["current"] is True
    assert session["createTime"].endswith("Z")
    proto = await control.call("control.SessionService/ListSessions", b"", token, content_type="application/proto")
    assert len(session_service_pb2.ListSessionsResponse.FromString(proto.content).sessions) == 1


async def test_a_person_ends_the_sessions_of_other_devices(control: Control) -> None:
    method = "control.SessionService/RevokeSessions"
    phone, laptop = await control.sign_in(), await control.sign_in()
    token = laptop["tokens"]["accessToken"]
    [ended] = (await control.ok(method, {"keepCurrent": True}, token))["sessionIds"]
    shown = (await control.ok("control.SessionService/ListSessions", {}, token))["sessions"]
    revoked = {one["sessionId"]: one["deviceId"] for one in shown if "revokeTime" in one}
    assert revoked == {ended: phone["deviceId"]}
    assert reason_of(await control.call(method, {"deviceId": "phone"}, token)) == "invalid_value"
    assert await control.ok(method, {"deviceId": phone["deviceId"]}, token) == {}
    assert len((await control.ok(method, {}, token))["sessionIds"]) == 1
    assert reason_of(await control.call(method, {}, token)) == "token_revoked"
