"""Lines that a person types when asked.

CPython notices a signal before it begins to read, and while it reads. It notices a signal that comes in between, in the
moment after the question was shown, only after something was typed. Therefore the wait here is one that a signal ends.
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
"""Maximum number of signals that are taken at once."""


def next_line(stdin: TextIO) -> bytes:
    """Return the next line of standard input, with its line ending; without one at the end of the input."""
    try:
        fd = stdin.fileno()
    except (OSError, ValueError):  # standard input of a test
        return stdin.buffer.readline()
    line = bytearray()
    with _woken_by_signals() as woken:
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([fd, woken.fileno()], [], [])
            if woken.fileno() in ready:
                woken.recv(_MAX_SIGNALS)  # from a signal that ends nothing
            if fd in ready:
                byte = os.read(fd, 1)  # bytes after the line belong to the next one
                if not byte:
                    break
                line += byte
    return bytes(line)


@contextlib.contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """Yield a socket that can be read from as soon as a signal has come. The signal's handler runs after that."""
    woken, waking = socket.socketpair()
    with woken, waking:
        waking.setblocking(False)
        before = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(before)
