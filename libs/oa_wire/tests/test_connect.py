"""Reading the public edge's errors."""

import base64
import json

import pytest

from oa_base.refusal import Refusal
from oa_wire.connect import from_connect
from oa_wire.status import to_status


def _connect_body(refusal: Refusal) -> bytes:
    """As the Connect protocol writes it: unpadded base64, the type without its prefix."""
    status = to_status(refusal)
    details = [
        {"type": any_.type_url.rpartition("/")[2], "value": base64.b64encode(any_.value).decode().rstrip("=")}
        for any_ in status.details
    ]
    code = refusal.info.grpc_code.lower()
    return json.dumps({"code": code, "message": status.message, "details": details}).encode()


def test_everything_of_a_refusal_comes_back() -> None:
    sent = Refusal("rate_limited", "Wait.", field="email", metadata={"limit": "5"}, retry_after_ms=1500)
    read = from_connect(429, _connect_body(sent))
    assert (read.reason, read.message, read.field) == ("rate_limited", "Wait.", "email")
    assert (read.metadata, read.retry_after_ms) == ({"limit": "5"}, 1500)


def test_a_code_without_details_gives_the_nearest_reason() -> None:
    assert from_connect(404, b'{"code":"not_found","message":"no such run"}').reason == "not_found"
    assert from_connect(499, b'{"code":"canceled"}').reason == "cancelled"


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad Gateway</html>", b"[]", b'{"code":7}', b"\xff", b'"x"', b"[" * 99_999]
)
def test_an_answer_that_is_not_the_edges(body: bytes) -> None:
    refusal = from_connect(502, body, retry_after_ms=2000)
    assert (refusal.reason, refusal.retry_after_ms) == ("unavailable", 2000)
    assert "502" in refusal.message


@pytest.mark.parametrize("details", ["x", [1], [{}], [{"type": "a", "value": "%"}], [{"type": "a.B", "value": "AA"}]])
def test_details_that_make_no_sense_are_left_out(details: object) -> None:
    body = json.dumps({"code": "unavailable", "message": "m", "details": details}).encode()
    assert from_connect(503, body).reason == "unavailable"
