"""What a run wrote, on a terminal."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.cli.terminal import RESET, TerminalText, uncoloured
from oa_base.visible import LAYOUT, visible

BYTES = bytes(range(256))
PIECES = st.sampled_from(
    [b"\x1b", b"[", b"1", b"m", b"\x1b[31m", b"\r", b"\n", b"\xe4", "你\u202e".encode(), b"x", BYTES]
)
RUNS = st.lists(st.one_of(PIECES, st.binary(max_size=8))).map(b"".join)


def shown(*pieces: bytes) -> str:
    text = TerminalText()
    return "".join(map(text.feed, pieces)) + text.settle()


@pytest.mark.parametrize(
    ("written", "on_the_terminal"),
    [
        (b"a\tb\r\nc\n", "a\tb\nc\n"),
        (b"10%\r20%\r\r\n", "10%\n20%\n"),
        (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        (b"\x1b[31mred", "\x1b[31mred" + RESET),
        (b"\x1b]0;pwned\x07\x1b[2J", r"\x1b]0;pwned\x07\x1b[2J"),
        (b"\xc2\x9b1m\x00\xff\x1b", r"\x9b1m\x00" + "\ufffd" + r"\x1b"),
        (b"\x1b[" + b"1" * 65 + b"m", r"\x1b[" + "1" * 65 + "m"),
        ("\u202eabc\u200b".encode(), r"\u202eabc\u200b"),
    ],
)
def test_colours_and_lines_stay_and_the_rest_is_made_visible(written: bytes, on_the_terminal: str) -> None:
    assert shown(written) == on_the_terminal


@given(RUNS)
@example(BYTES)
def test_nothing_but_colours_reaches_the_terminal(written: bytes) -> None:
    text = uncoloured(shown(written))
    assert visible(text, LAYOUT) == text
    assert uncoloured(shown(written)) == text
    colours = re.findall(r"\x1b\[[0-9;:]*m", shown(written))
    assert not colours or colours[-1] in (RESET, "\x1b[m"), "colours end where the run's output does"


@given(RUNS, st.lists(st.integers(0, 2000)))
@example(BYTES, list(range(256)))
def test_it_is_the_same_wherever_it_is_cut(written: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(min(cut, len(written)) for cut in cuts), len(written)]
    assert shown(*(written[a:b] for a, b in pairwise(ends))) == shown(written)
