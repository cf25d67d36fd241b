"""Page tokens: they lead back to their key, for their query alone."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_wire.page_tokens import decode_page_token, encode_page_token

DIGEST, OTHER = b"1" * 32, b"2" * 32


@given(key=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1))
def test_a_token_leads_back_to_its_key(key: str) -> None:
    assert decode_page_token(encode_page_token(key, DIGEST), DIGEST) == key


def test_no_key_is_no_token() -> None:
    assert encode_page_token("", DIGEST) == ""
    assert decode_page_token("", DIGEST) == ""


@pytest.mark.parametrize(
    "token",
    [
        encode_page_token("a", OTHER),
        encode_page_token("run_\x00", DIGEST),
        "a",
        "%%%%",
        base64.urlsafe_b64encode(b"\xff\xff").decode(),
        "ä" * 4,
    ],
)
def test_any_other_is_refused(token: str) -> None:
    with pytest.raises(Refusal) as caught:
        decode_page_token(token, DIGEST)
    assert (caught.value.reason, caught.value.field) == ("invalid_page_token", "page_token")


@given(token=st.text(min_size=1, max_size=64))
def test_whatever_is_sent_is_a_key_or_a_refusal(token: str) -> None:
    with pytest.raises(Refusal):
        decode_page_token(token, DIGEST)
