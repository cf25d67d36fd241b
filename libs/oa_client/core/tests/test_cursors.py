"""Cursors as texts: as every client writes them, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_client.core.cursors import MAX_EPOCH_CHARACTERS, read_cursor, write_cursor
from oa_khala.frames import Cursor

CHAIN = bytes(range(32))
EPOCH_CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


def test_it_is_written_as_the_typescript_client_writes_it() -> None:
    text = '{"epoch":"e1","appliedSeq":7,"chain":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}'
    assert write_cursor(Cursor("e1", 7, CHAIN)) == text
    assert write_cursor(Cursor("", 0)) == '{"epoch":"","appliedSeq":0,"chain":""}'


@given(
    st.text(EPOCH_CHARACTERS, max_size=MAX_EPOCH_CHARACTERS), st.integers(0, 2**63 - 1), st.sampled_from([b"", CHAIN])
)
def test_what_was_written_is_read(epoch: str, seq: int, chain: bytes) -> None:
    cursor = Cursor(epoch, seq, chain)
    assert read_cursor(write_cursor(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        "7",
        "[]",
        '{"epoch":"e1","appliedSeq":7}',
        '{"epoch":1,"appliedSeq":7,"chain":""}',
        '{"epoch":"e1","appliedSeq":-1,"chain":""}',
        '{"epoch":"e1","appliedSeq":7.0,"chain":""}',
        '{"epoch":"e1","appliedSeq":true,"chain":""}',
        '{"epoch":"e1","appliedSeq":7,"chain":"00"}',
        '{"epoch":"e1","appliedSeq":7,"chain":"s3cret"}',
        '{"epoch":"e1","appliedSeq":9223372036854775808,"chain":""}',
        '{"epoch":"\\u0000","appliedSeq":7,"chain":""}',
        '{"epoch":"\\ud800","appliedSeq":7,"chain":""}',
        '{"epoch":"%s","appliedSeq":7,"chain":""}' % ("é" * 65),
    ],
)
def test_another_text_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_cursor(text)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "cursor")
    assert "s3cret" not in refused.value.message
