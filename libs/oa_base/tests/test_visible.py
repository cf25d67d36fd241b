"""Nothing that drives a terminal, hides or reorders comes out of `visible`, and nothing else is touched."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oa_base.visible import LAYOUT, is_text, storable, visible, visible_json

BYTES = bytes(range(256))
ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Half surrogates, too."""
DANGEROUS = {*range(0x20), *range(0x7F, 0xA0), 0x061C, *range(0x200B, 0x2010), *range(0x2028, 0x202F)}
DANGEROUS |= {*range(0x2060, 0x2065), *range(0x2066, 0x206A), 0xFEFF, *range(0xD800, 0xE000)}


@pytest.mark.parametrize("layout", ["", LAYOUT])
def test_what_drives_a_terminal_hides_or_reorders_is_made_visible(layout: str) -> None:
    for code in DANGEROUS - set(map(ord, layout)):
        shown = visible(f"a{chr(code)}b", layout)
        assert shown == f"a{ascii(chr(code))[1:-1]}b"
        assert shown.isascii()
        assert shown.isprintable()


@given(ANY_TEXT)
@example(BYTES.decode("latin-1"))
@example(BYTES.decode("utf-8", "surrogateescape"))
def test_what_comes_out_is_shown_and_nothing_else(text: str) -> None:
    shown = visible(text)
    assert not [character for character in shown if ord(character) in DANGEROUS]
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert visible(shown) == shown
    assert is_text(shown)


def test_what_people_write_stays_as_it_is() -> None:
    words = "plain · 你好 · naïve · e\u0301 · \u3000 · עברית · 👍🏽 · ✔ · C:\\x1b · [bold] :skull:"
    assert visible(words) == words
    assert visible("a\tb\nc", LAYOUT) == "a\tb\nc"
    assert visible("a\tb\nc\r\n") == r"a\tb\nc\r\n"
    assert visible("\x1b]0;pwned\a\x1b[2J") == r"\x1b]0;pwned\x07\x1b[2J"
    assert visible("\u202e\u2066\u200b\U000e0041\udcff\u3164") == r"\u202e\u2066\u200b\U000e0041\udcff\u3164"


@given(st.dictionaries(ANY_TEXT, ANY_TEXT))
@example({"all": BYTES.decode("latin-1")})
def test_json_means_the_same_and_is_visible(value: dict[str, str]) -> None:
    document = visible_json(json.dumps(value, ensure_ascii=False))
    assert visible(document) == document
    assert json.loads(document.encode("utf-8")) == json.loads(json.dumps(value))


def test_bytes_that_are_no_utf_8_are_no_text() -> None:
    assert is_text("你 \x1b")
    assert not is_text(b"a\xff".decode("utf-8", "surrogateescape"))


@given(ANY_TEXT)
@example("a\0b\ud800c")
def test_what_no_log_takes_is_replaced_and_nothing_else(text: str) -> None:
    kept = storable(text)
    assert len(kept) == len(text)
    assert is_text(kept)
    assert all(old in ("\0", new) or not is_text(old) for old, new in zip(text, kept, strict=True))
    assert "\0" not in kept
