"""Lines that a person types when asked.

CPython hears of a signal before it begins to read, and while it reads. One that comes in between, in the moment after
the question was shown, it hears of once something was typed: so here it is waited for in a way that a signal ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from typing import TextIO

_MAX_SIGNALS = 4096
"""So many of those that came are taken at once."""


def next_line(stdin: TextIO) -> bytes:
    """The next line of standard input, with its end; without one at the end of the input."""
    try:
        fd = stdin.fileno()
    except (OSError, ValueError):  # a test's
        return stdin.buffer.readline()
    line = bytearray()
    with _woken_by_signals() as woken:
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([fd, woken.fileno()], [], [])
            if woken.fileno() in ready:
                woken.recv(_MAX_SIGNALS)  # of a signal that ends nothing
            if fd in ready:
                byte = os.read(fd, 1)  # what comes after the line is the next one's
                if not byte:
                    break
                line += byte
    return bytes(line)


@contextlib.contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """What can be read from as soon as a signal has come; its handler runs after that."""
    woken, waking = socket.socketpair()
    with woken, waking:
        waking.setblocking(False)
        before = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(before)
