"""One meaning each: what two readers could read differently is read by nobody."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_wire.strict.json import merge_json
from oa_wire.strict.text import MAX_JSON_DEPTH, read_any_base64, read_base64, read_json
from openagents.runtime.v1 import event_pb2, receipt_pb2

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(_values)
def test_what_has_one_meaning_is_read(value: object) -> None:
    text = json.dumps(value)
    assert read_json(text) == read_json(text.encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":{"b":1,"b":2}}',
        '[{"a":1,"\\u0061":2}]',
        "NaN",
        "[-Infinity]",
        "[1e999]",
        "{} {}",
        "",
        "\ufeff{}",
        '"a'.encode("utf-16"),
        "{}".encode("utf-32"),
        b'"\xff"',
        "1" * 5000,
    ],
)
def test_what_has_none_or_two_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        read_json(text)


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_read_up_to_its_limit_whoever_asks(opened: str, closed: str) -> None:
    def text(depth: int, innermost: str = "1") -> str:
        return opened * depth + innermost + closed * depth

    assert read_json(text(MAX_JSON_DEPTH))
    for depth in (MAX_JSON_DEPTH + 1, 1_000, 100_000):
        with pytest.raises(ValueError, match="deeper"):
            read_json(text(depth))
    for empty in ("[]", "{}"):  # is a level, too
        assert read_json(text(MAX_JSON_DEPTH - 1, empty))
        with pytest.raises(ValueError, match="deeper"):
            read_json(text(MAX_JSON_DEPTH, empty))


# ------------------------------------------------------------------------------------------------- base64


@given(st.binary(max_size=40))
def test_bytes_have_one_form_and_four_in_proto3_json(data: bytes) -> None:
    standard, safe = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
    assert read_base64(standard) == data
    assert {read_any_base64(text) for text in (standard, safe, standard.rstrip("="), safe.rstrip("="))} == {data}


NOT_BASE64 = ["QQ==QQ==", "QQ==x", "QR==", "QUJ=", "Q", "QQ=", "Q Q==", "QQ==\n", "é", "QQ+_", "===="]


@pytest.mark.parametrize("text", NOT_BASE64)
def test_other_base64_is_none(text: str) -> None:
    for read in (read_base64, read_any_base64):
        with pytest.raises(ValueError):
            read(text)


@pytest.mark.parametrize("text", NOT_BASE64)
def test_the_field_whose_base64_is_none_is_named(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        merge_json(json.dumps({"signature": text}), receipt_pb2.Receipt())
    assert (caught.value.reason, caught.value.field) == ("malformed_message", "signature")


# ------------------------------------------------------------------------------------------------- depth of messages


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_a_message_from_json_can_be_read_in_binary_whatever_its_depth(opened: str, closed: str) -> None:
    """The parser of JSON goes deeper than those of the binary form: what it took alone, nobody could read later."""
    taken = set()
    for depth in range(1, 130):
        text = '{"custom":{"type":"a.b","data":{"x":' + opened * depth + "1" + closed * depth + "}}}"
        message = event_pb2.EventBody()
        try:
            merge_json(text, message)
        except Refusal:
            taken.add(False)
            continue
        assert event_pb2.EventBody.FromString(message.SerializeToString()) == message
        taken.add(True)
    assert taken == {True, False}
