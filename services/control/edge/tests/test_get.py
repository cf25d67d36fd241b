"""GET for methods that change nothing: the message is in the query, as Connect's unary protocol has it."""

from __future__ import annotations

import base64
import gzip
from urllib.parse import quote

import httpx
import pytest

from openagents.control.v1 import session_service_pb2
from services.control.tests.harness import Control, field_of, new_id, reason_of

GET_CALLER = "/openagents.control.v1.SessionService/GetCaller"
GET_RUN = "/openagents.runtime.v1.RunService/GetRun"


async def got(control: Control, path: str, query: str, token: str) -> httpx.Response:
    """The answer to a GET with exactly this query."""
    return await control.http.get(f"{path}?{query}", headers={"authorization": f"Bearer {token}"})


def urlsafe(content: bytes) -> str:
    """As a query has bytes."""
    return base64.urlsafe_b64encode(content).decode()


async def test_a_read_is_a_get_in_every_form(control: Control) -> None:
    token = await control.access_token()
    packed = urlsafe(gzip.compress(b"{}"))
    for query in (
        "connect=v1&encoding=json&message=%7B%7D",
        "encoding=json&message=%7B%7D",
        f"encoding=json&base64=1&message={urlsafe(b'{ }')}",
        f"encoding=json&base64=1&message={urlsafe(b'{ }').rstrip('=')}",
        f"encoding=json&base64=1&compression=gzip&message={packed}",
        "encoding=json&compression=identity&message=%7B%7D",
    ):
        answer = await got(control, GET_CALLER, query, token)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), query
        assert answer.json()["email"] == "ada@example.org"
        assert answer.headers["cache-control"] == "private, no-store"
    answer = await got(control, GET_CALLER, "connect=v1&encoding=proto&base64=1&message=", token)
    assert answer.headers["content-type"] == "application/proto"
    assert session_service_pb2.GetCallerResponse.FromString(answer.content).email == "ada@example.org"


async def test_a_forwarded_read_is_a_get(control: Control) -> None:
    token = await control.access_token()
    run = {"idempotencyKey": "k1", "spec": {"adapter": "exec", "exec": {"argv": ["git", "log"]}}}
    run_id = (await control.ok("runtime.RunService/CreateRun", run, token))["run"]["runId"]
    message = quote(f'{{"runId":"{run_id}"}}')
    answer = await got(control, GET_RUN, f"encoding=json&message={message}", token)
    assert answer.json()["run"]["runId"] == run_id
    message = quote(f'{{"runId":"{new_id("run")}"}}')
    answer = await got(control, GET_RUN, f"encoding=json&message={message}", token)
    assert (answer.status_code, reason_of(answer)) == (404, "not_found")


@pytest.mark.parametrize(
    ("query", "status", "reason", "field"),
    [
        ("", 400, "missing_field", "message"),
        ("encoding=json", 400, "missing_field", "message"),
        ("message=%7B%7D", 400, "missing_field", "encoding"),
        ("message=%7B%7D&encoding=xml", 415, "unsupported_media_type", "encoding"),
        ("message=%7B%7D&encoding=json&encoding=json", 400, "malformed_message", "encoding"),
        ("message=%7B%7D&message=%7B%7D&encoding=json", 400, "malformed_message", "message"),
        ("message=%7B&encoding=json", 400, "malformed_message", ""),
        ("message=.&encoding=json&base64=1", 400, "malformed_message", "message"),
        ("message=a&encoding=json&base64=1", 400, "malformed_message", "message"),
        ("message=%7B%7D&encoding=json&compression=br", 501, "unsupported_encoding", ""),
        ("message=%7B%7D&encoding=json&compression=gzip", 400, "malformed_message", ""),
        ("message=%7B%7D&encoding=json&connect=v2", 426, "unsupported_protocol_version", ""),
    ],
)
async def test_a_bad_query_is_refused(control: Control, query: str, status: int, reason: str, field: str) -> None:
    answer = await got(control, GET_CALLER, query, await control.access_token())
    assert (answer.status_code, reason_of(answer), field_of(answer)) == (status, reason, field)


async def test_what_changes_something_is_no_get(control: Control) -> None:
    answer = await got(control, "/openagents.runtime.v1.RunService/CreateRun", "encoding=json&message=%7B%7D", "x")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = await control.http.put(GET_CALLER)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


async def test_a_get_asks_for_a_token_and_says_nothing_to_other_pages(control: Control) -> None:
    query = "encoding=json&message=%7B%7D"
    assert reason_of(await control.http.get(f"{GET_CALLER}?{query}")) == "missing_authorization"
    headers = {"authorization": f"Bearer {await control.access_token()}", "origin": "https://evil.example.org"}
    assert reason_of(await control.http.get(f"{GET_CALLER}?{query}", headers=headers)) == "origin_not_allowed"


@pytest.mark.parametrize("name", ["access_token", "token", "authorization", "Authorization", "bearer"])
async def test_a_token_in_a_url_or_a_cookie_is_none(control: Control, name: str) -> None:
    """So nobody puts one there, where proxies and histories keep it."""
    token = await control.access_token()
    for value in (token, f"Bearer%20{token}"):
        query, cookie = f"{name}={value}", {"cookie": f"{name}={value}"}
        answers = [
            await control.http.get(f"{GET_CALLER}?encoding=json&message=%7B%7D&{query}"),
            await control.http.post(f"{GET_CALLER}?{query}", json={}),
            await control.http.get(f"{GET_CALLER}?encoding=json&message=%7B%7D", headers=cookie),
        ]
        for answer in answers:
            assert (answer.status_code, reason_of(answer)) == (401, "missing_authorization")
