"""Inputs and the bytes that they say to a command's standard input."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog.events import ExecSpec, Terminal
from oa_runlog.stdin import MAX_PIECE_BYTES, StdinPiece, check_is_heard, piece_json, read_piece


@pytest.mark.parametrize(
    ("text", "data", "ends"),
    [
        ('"hello"', b"hello\n", False),
        ('"hello\\n"', b"hello\n", False),
        ('"a\\nb"', b"a\nb\n", False),
        ('""', b"\n", False),
        ('"\\u0000é"', b"\0\xc3\xa9\n", False),
        ('{"text":"hello"}', b"hello", False),
        ('{"text":"hello","end":true}', b"hello", True),
        ('{"text":"","end":false}', b"", False),
        ('{"base64":"AP8K"}', b"\0\xff\n", False),
        ('{"end":true}', b"", True),
    ],
)
def test_what_an_input_says(text: str, data: bytes, ends: bool) -> None:
    assert read_piece(text) == StdinPiece(data, ends)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "17",
            "null",
            "true",
            "[]",
            '["a"]',
            "{}",
            '{"say":"a"}',
            '{"text":"a","more":1}',
            '{"text":"a","base64":""}',
        ),
        *('{"text":17}', '{"end":1}', '{"end":"true"}', '{"base64":"A"}', '{"base64":"AP8L "}', '{"base64":null}'),
        *("{", "", '"\\ud800"', '{"text":"\\ud800"}', '{"end":true,"end":true}'),
    ],
)
def test_what_says_nothing_is_refused_with_what_does(text: str) -> None:
    with pytest.raises(Refusal, match="send a string, which is a line, or an object") as refused:
        read_piece(text)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "input_json")


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_every_size_of_a_terminal_is_said_and_read(columns: int, rows: int) -> None:
    piece = StdinPiece(b"", size=(columns, rows))
    assert read_piece(piece_json(piece)) == piece


@pytest.mark.parametrize(
    "size",
    [
        *("17", "{}", '{"columns":80}', '{"columns":80,"rows":0}', '{"columns":1001,"rows":1}', "null"),
        *('{"columns":true,"rows":1}', '{"columns":80,"rows":24,"more":1}', '{"columns":"80","rows":24}'),
        '{"columns":80.0,"rows":24}',
    ],
)
def test_what_is_no_size_is_refused_with_what_is(size: str) -> None:
    with pytest.raises(Refusal, match="each from 1 to 1000") as refused:
        read_piece(f'{{"resize":{size}}}')
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "input_json")


RESIZE = '{"resize":{"columns":80,"rows":24}}'


@pytest.mark.parametrize(
    ("stdin", "terminal", "said", "refusal"),
    [
        (True, None, '"hi"', ""),
        (True, Terminal(), '"hi"', ""),
        (True, Terminal(), RESIZE, ""),
        (False, Terminal(), RESIZE, ""),
        (False, None, RESIZE, "takes no inputs"),
        (True, None, RESIZE, "no terminal to resize"),
        (False, Terminal(), '"hi"', "nobody types"),
        (False, Terminal(), '{"end":true}', "nobody types"),
        (False, None, '"hi"', "takes no inputs"),
    ],
)
def test_what_a_command_can_be_told(stdin: bool, terminal: Terminal | None, said: str, refusal: str) -> None:
    command = ExecSpec(("cat",), stdin=stdin, terminal=terminal)
    if not refusal:
        return check_is_heard(command, said)
    with pytest.raises(Refusal, match=refusal) as refused:
        check_is_heard(command, said)
    assert refused.value.reason == "invalid_value"
    return None


@given(st.binary() | st.text().map(str.encode), st.booleans())
def test_every_piece_is_said_and_read_as_it_is(data: bytes, ends: bool) -> None:
    piece = StdinPiece(data, ends)
    assert read_piece(piece_json(piece)) == piece


def test_text_stays_readable_and_everything_else_is_base64() -> None:
    assert piece_json(StdinPiece("Grüße\n".encode())) == '{"text":"Grüße\\n"}'
    assert piece_json(StdinPiece(b"", True)) == '{"end":true}'
    for data in (b"\xc3", b"a\0b", b"\x01" * 100):
        assert "base64" in json.loads(piece_json(StdinPiece(data)))


@pytest.mark.parametrize("byte", [b"a", b"\x01", b"\xff", b"\0", b'"'])
def test_the_largest_piece_fits_into_an_input_whatever_it_holds(byte: bytes) -> None:
    assert len(piece_json(StdinPiece(byte * MAX_PIECE_BYTES, True)).encode()) <= 192 * 1024
