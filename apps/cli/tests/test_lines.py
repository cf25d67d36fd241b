"""Lines that are asked for: one at a time, and whatever signal comes meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from types import FrameType

import pytest

from apps.cli.input.lines import next_line


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to write what is typed."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb"):
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writing


def test_what_is_typed_ahead_waits_for_its_question(typing: int) -> None:
    os.write(typing, b"a@example.com\n1234")
    assert next_line(sys.stdin) == b"a@example.com\n"
    threading.Timer(0.01, os.write, (typing, b"5678\nrest\n")).start()
    assert [next_line(sys.stdin), next_line(sys.stdin)] == [b"12345678\n", b"rest\n"]


class Left(Exception):
    """By a signal."""


@pytest.mark.parametrize("leaves", [True, False])
def test_a_signal_is_heard_at_once_and_one_that_ends_nothing_is_no_line(typing: int, leaves: bool) -> None:
    heard = []

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)
        if leaves:
            raise Left
        os.write(typing, b"typed after it\n")

    before = signal.signal(signal.SIGUSR1, hear)
    try:
        with pytest.raises(Left) if leaves else nullcontext():  # also if it comes before anything is asked for
            threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1)).start()
            assert next_line(sys.stdin) == b"typed after it\n"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]
