"""The terminal that a run gets: one like ours, even after ours has changed, and the keys that are typed at ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import termios
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager

import click

from oa_runlog.events import Terminal
from oa_runlog.stdin import MAX_TERMINAL_SIDE

_OUR_FILES = (1, 0, 2)
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def terminal_like_ours(files: Iterable[int] = _OUR_FILES) -> Terminal:
    """Return a terminal as large as the first of ours that has a size; of the usual size if none has."""
    for fd in files:
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:  # it is a pipe, a file, or closed
            continue
        if columns and rows:
            return Terminal(min(columns, MAX_TERMINAL_SIDE), min(rows, MAX_TERMINAL_SIDE))
    return Terminal()


async def sizes(given: Terminal, files: Iterable[int] = _OUR_FILES) -> AsyncGenerator[Terminal, None]:
    """Yield each size that our terminal has after the `given` one. Between two requests, only the newest counts."""
    files, loop, changed = tuple(files), asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            now = terminal_like_ours(files)
            if now != given:
                given = now
                yield now
            await changed.wait()
            changed.clear()
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@contextmanager
def keys_alone(fd: int) -> Iterator[None]:
    """Within the block, each key of the terminal arrives as it is pressed. No key is echoed or has a meaning here.

    Output to the terminal is unchanged. However the block is left, the terminal is restored.
    """
    kept = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP | termios.IXON)
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, mode)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(fd, termios.TCSADRAIN, kept)


@contextmanager
def left_in_order() -> Iterator[Callable[[], None]]:
    """Yield a function that ends the block with click's Abort. So do SIGTERM and SIGHUP, which would not wait."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    left = False

    def leave() -> None:
        nonlocal left
        if not left:
            left = True
            task.cancel()

    numbers = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, leave)
    try:
        yield leave
    except asyncio.CancelledError:
        if left and not task.uncancel():
            raise click.Abort from None
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
