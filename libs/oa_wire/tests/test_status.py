"""A refusal survives the wire, cut where it must be; what is not ours is not taken for ours."""

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from oa_base.catalogue import all_reasons
from oa_base.refusal import Refusal
from oa_wire.status import (
    MAX_MESSAGE_BYTES,
    MAX_METADATA_BYTES,
    from_code,
    from_status_bytes,
    to_status,
    wire_message,
)

_TEXT = st.text(st.characters(codec="utf-8"), max_size=100)


@given(
    st.sampled_from([info.reason for info in all_reasons()]),
    _TEXT,
    _TEXT,
    st.dictionaries(st.text("abc", min_size=1, max_size=5), _TEXT, max_size=3),
    st.integers(0, 10**9),
)
def test_a_refusal_survives(reason: str, message: str, field: str, metadata: dict[str, str], delay_ms: int) -> None:
    sent = Refusal(reason, message, field=field, metadata=metadata, retry_after_ms=delay_ms)
    got = from_status_bytes(to_status(sent).SerializeToString())
    assert got is not None
    assert (got.reason, got.message, got.field) == (reason, message, field)
    assert (got.metadata, got.retry_after_ms) == (metadata, delay_ms or sent.info.retry_after_ms)


@pytest.mark.parametrize("letter", ["a", "ä", "𝄞", "\ud800"])
def test_what_is_too_long_is_cut_between_characters(letter: str) -> None:
    refusal = Refusal("not_found", letter * 5000, field=letter * 500, metadata={"k": letter * 5000, "lost": "x"})
    status = to_status(refusal)
    assert MAX_MESSAGE_BYTES - 4 < len(wire_message(refusal).encode()) <= MAX_MESSAGE_BYTES
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert sum(len(key.encode()) + len(value.encode()) for key, value in info.metadata.items()) <= MAX_METADATA_BYTES
    assert "field" in info.metadata


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    refusal = from_status_bytes(data)
    assert refusal is None or refusal.reason


@pytest.mark.parametrize(
    "info",
    [
        error_details_pb2.ErrorInfo(reason="not_found", domain="example.com"),
        error_details_pb2.ErrorInfo(reason="unheard_of", domain="openagents"),
    ],
    ids=["domain", "reason"],
)
def test_what_is_not_ours_is_none(info: error_details_pb2.ErrorInfo) -> None:
    status = status_pb2.Status(code=5)
    status.details.add().Pack(info)
    assert from_status_bytes(status.SerializeToString()) is None


def test_details_that_are_broken_inside_are_none() -> None:
    status = to_status(Refusal("not_found", "…"))
    status.details[0].value = b"\xff\xff"
    assert from_status_bytes(status.SerializeToString()) is None


@pytest.mark.parametrize(
    ("code", "details", "reason"),
    [
        ("UNAVAILABLE", "connection refused", "unavailable"),
        ("UNKNOWN", "", "internal"),
        ("INTERNAL", "Internal error from Core", "unavailable"),
        ("INTERNAL", "a defect", "internal"),
        ("UNIMPLEMENTED", "Received http2 header with status: 404", "unavailable"),
        ("PERMISSION_DENIED", "Received http2 header with status: 403", "unavailable"),
        ("PERMISSION_DENIED", "RBAC: access denied", "unavailable"),
        ("UNAUTHENTICATED", "Jwt is missing", "unavailable"),
        ("INTERNAL", "Received http2 header with status: 400", "unavailable"),
        ("UNIMPLEMENTED", "Method not found!", "unknown_method"),
        ("RESOURCE_EXHAUSTED", "", "overloaded"),
        ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 4)", "request_too_large"),
    ],
)
def test_a_bare_code_has_a_nearest_reason(code: str, details: str, reason: str) -> None:
    refusal = from_code(code, details)
    assert refusal.reason == reason
    assert refusal.message
