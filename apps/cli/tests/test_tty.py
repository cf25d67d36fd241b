"""The terminal that a run gets, and what is typed at ours."""

from __future__ import annotations

import asyncio
import os
import signal
import termios
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import click
import pytest

from apps.cli.input.tty import keys_alone, left_in_order, sizes, terminal_like_ours
from oa_runlog.events import Terminal
from oa_testing.waiting import PATIENCE_S


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


async def test_each_new_size_is_told_and_of_several_the_newest() -> None:
    with terminal_of(100, 30) as fd:
        async with aclosing(sizes(Terminal(100, 30), [fd])) as told:
            first = asyncio.create_task(anext(told))
            await asyncio.sleep(0)
            for columns in (101, 102, 103):
                termios.tcsetwinsize(fd, (30, columns))
            os.kill(os.getpid(), signal.SIGWINCH)
            async with asyncio.timeout(PATIENCE_S):
                assert await first == Terminal(103, 30)
    assert signal.getsignal(signal.SIGWINCH) == signal.SIG_DFL


def test_keys_come_alone_and_the_terminal_is_as_it_was_whatever_happens() -> None:
    def fail_at(fd: int) -> None:
        with keys_alone(fd):
            assert not termios.tcgetattr(fd)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            assert termios.tcgetattr(fd)[1] == before[1], "what is shown there is as ever"
            raise ZeroDivisionError

    with terminal_of(80, 24) as fd:
        before = termios.tcgetattr(fd)
        with pytest.raises(ZeroDivisionError):
            fail_at(fd)
        assert termios.tcgetattr(fd) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, None])
async def test_who_is_told_to_end_leaves_in_order(number: signal.Signals | None) -> None:
    async def wait_at(fd: int) -> None:
        with left_in_order() as leave, keys_alone(fd):
            leave() if number is None else os.kill(os.getpid(), number)
            await asyncio.sleep(PATIENCE_S)

    with terminal_of(80, 24) as fd:
        before = termios.tcgetattr(fd)
        with pytest.raises(click.Abort):
            await wait_at(fd)
        assert termios.tcgetattr(fd) == before


async def test_a_cancel_from_elsewhere_stays_one() -> None:
    async def wait() -> None:
        with left_in_order():
            await asyncio.sleep(PATIENCE_S)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
