"""The size of the terminal that a run gets."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from apps.cli.tty import terminal_like_ours
from oa_runlog.events import Terminal


@contextmanager
def terminal_of(columns: int, rows: int) -> Iterator[int]:
    ours, theirs = os.openpty()
    try:
        termios.tcsetwinsize(theirs, (rows, columns))
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize(
    ("columns", "rows", "given"),
    [
        (132, 43, Terminal(132, 43)),
        (1, 1, Terminal(1, 1)),
        (1000, 1001, Terminal(1000, 1000)),
        (65_535, 65_535, Terminal(1000, 1000)),
        (0, 0, Terminal(80, 24)),
    ],
)
def test_it_is_that_of_our_terminal_within_what_is_taken(columns: int, rows: int, given: Terminal) -> None:
    with terminal_of(columns, rows) as fd:
        assert terminal_like_ours([fd]) == given


def test_the_first_file_that_is_a_terminal_counts_and_without_one_it_is_80_times_24() -> None:
    reading, writing = os.pipe()
    try:
        with terminal_of(100, 30) as first, terminal_of(200, 60) as second:
            assert terminal_like_ours([writing, first, second]) == Terminal(100, 30)
        assert terminal_like_ours([reading, writing, 9999]) == Terminal(80, 24)
    finally:
        os.close(reading)
        os.close(writing)
