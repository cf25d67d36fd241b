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

_READ_BYTES = 64 * 1024
_typed = bytearray()
"""What was read from standard input beyond the lines that were asked for."""


def next_line(stdin: TextIO) -> bytes:
    """The next line of standard input, with its end; without one at the end of the input."""
    try:
        fd = stdin.fileno()
    except (OSError, ValueError):  # a test's
        return stdin.buffer.readline()
    with _woken_by_signals() as woken:
        while b"\n" not in _typed:
            ready, _, _ = select.select([fd, woken.fileno()], [], [])
            if woken.fileno() in ready:
                woken.recv(_READ_BYTES)  # of a signal that ends nothing
            if fd in ready:
                data = os.read(fd, _READ_BYTES)
                if not data:
                    break
                _typed.extend(data)
    line, end, rest = _typed.partition(b"\n")
    _typed[:] = rest
    return bytes(line + end)


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
