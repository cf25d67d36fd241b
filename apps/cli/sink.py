"""Standard output and standard error, which may be closed, full, or read by nobody. Only `output` uses this."""

from __future__ import annotations

import errno
import io
import os
import select
from typing import Any, TextIO

from oa_base.visible import LAYOUT, visible

_STANDARD = (0, 1, 2)


class Sink:
    """Standard output or standard error. Never raises: keeps the first failure in `lost`, and drops later output.

    Nothing is buffered, so that a failure is known at once and the interpreter has nothing left to write when it exits.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """`stream` is None when it was closed before the program began."""
        buffer: Any = getattr(stream, "buffer", None)
        self._raw: Any = getattr(buffer, "raw", buffer)
        self._terminal = stream is not None and stream.isatty()
        self.encoding = (stream.encoding if stream is not None else "") or "utf-8"
        self.lost: OSError | None = None
        self.place = _place(stream)
        """Equal for two sinks that write to the same terminal, pipe or file."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._terminal

    def write(self, text: str) -> int:
        """Write text in the locale's encoding. Characters that it lacks become backslash escapes."""
        self.write_bytes(text.encode(self.encoding, "backslashreplace"))
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write exactly these bytes."""
        left = memoryview(data)
        try:
            while left and self.lost is None:
                left = left[self._some(left) :]
        except OSError as error:
            self.lost = error

    def flush(self) -> None:
        """Do nothing, because nothing is buffered."""

    def _some(self, data: memoryview) -> int:
        if self._raw is None or self._raw.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        written: int | None = self._raw.write(data)
        if written is None:  # another process that shares this file made it non-blocking, and it is full now
            select.select([], [self._raw], [])
        return written or 0


def _place(stream: TextIO | None) -> object:
    try:
        status = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):
        return id(stream)
    return (status.st_dev, status.st_ino) if status is not None else None


class Strays(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` while a command runs, so that output of click and of libraries is caught, too."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._sink.isatty()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str | bytes) -> int:
        """Write lines of text. Bytes are accepted, too, because click writes completions as bytes."""
        words = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
        self._sink.write(visible(words, LAYOUT))
        return len(text)


def keep_standard_descriptors() -> None:
    """Open /dev/null in place of each closed standard file. Otherwise the next file that is opened would get its number
    and receive what is written there."""
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
