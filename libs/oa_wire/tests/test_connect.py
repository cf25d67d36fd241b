"""Errors of Connect, written and read."""

import json

import pytest

from oa_base.refusal import Refusal
from oa_wire.connect import from_connect, to_connect

HALF_A_CHARACTER = b'{"code":"internal","message":"\\ud800"}'


def test_everything_of_a_refusal_comes_back() -> None:
    sent = Refusal("rate_limited", "Wait.", field="email", metadata={"limit": "5"}, retry_after_ms=1500)
    read = from_connect(429, to_connect(sent))
    assert (read.reason, read.message, read.field) == ("rate_limited", "Wait.", "email")
    assert (read.metadata, read.retry_after_ms) == ({"limit": "5"}, 1500)


def test_a_body_is_as_the_protocol_has_it() -> None:
    body = json.loads(to_connect(Refusal("cancelled", "the client went away", retry_after_ms=1500)))
    assert (body["code"], body["message"]) == ("canceled", "the client went away")
    info, retry = body["details"]
    assert (info["type"], retry["type"]) == ("google.rpc.ErrorInfo", "google.rpc.RetryInfo"), "without a prefix"
    assert "=" not in info["value"] + retry["value"], "unpadded"
    assert (info["debug"]["reason"], retry["debug"]) == ("cancelled", {"retryDelay": "1.500s"})


def test_a_code_without_details_gives_the_nearest_reason() -> None:
    assert from_connect(404, b'{"code":"not_found","message":"no such run"}').reason == "not_found"
    assert from_connect(499, b'{"code":"canceled"}').reason == "cancelled"


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad Gateway</html>", b"[]", b'{"code":7}', b"\xff", b'"x"', b"[" * 99_999, HALF_A_CHARACTER]
)
def test_an_answer_that_is_not_the_edges(body: bytes) -> None:
    refusal = from_connect(502, body, retry_after_ms=2000)
    assert (refusal.reason, refusal.retry_after_ms) == ("unavailable", 2000)
    assert "502" in refusal.message


def test_a_page_of_a_proxy_that_is_starting_is_no_missing_method() -> None:
    assert from_connect(404, b"404 page not found\n").reason == "unavailable"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b'{"code":"unauthenticated","message":"no"}'])
def test_a_proxy_that_lets_nobody_in_says_nothing_about_the_token(status: int, body: bytes) -> None:
    assert from_connect(status, body).reason == "unavailable"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_said(status: int) -> None:
    refusal = from_connect(status, b"<html>Moved</html>")
    assert (refusal.reason, f"redirect (HTTP {status})" in refusal.message) == ("internal", True)


@pytest.mark.parametrize("details", ["x", [1], [{}], [{"type": "a", "value": "%"}], [{"type": "a.B", "value": "AA"}]])
def test_details_that_make_no_sense_are_left_out(details: object) -> None:
    body = json.dumps({"code": "unavailable", "message": "m", "details": details}).encode()
    assert from_connect(503, body).reason == "unavailable"
