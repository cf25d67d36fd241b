"""What a person types while something else goes on: lines of standard input, as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from apps.cli.output import typed_pieces

_MAX_LINES = 16
"""Maximum number of lines that are read before they are taken."""
MAX_LINE_BYTES = 64 * 1024
"""Maximum size of a line; a longer line is cut."""


class TypedLines:
    """`next` returns the next line, and None at the end of the input. Nothing is read before its first call.

    A thread reads, because nothing else reads terminals, pipes and files alike. It ends with the process.
    """

    def __init__(self) -> None:
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._room = threading.Semaphore(_MAX_LINES)
        self._loop = asyncio.get_running_loop()
        self._reader: threading.Thread | None = None
        self.ended = False
        """Whether `next` has returned the end."""

    async def next(self) -> str | None:
        """Return the next line that is not blank, without its line ending; None at the end of the input."""
        if self.ended:
            return None
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="stdin", daemon=True)
            self._reader.start()
        line = await self._lines.get()
        self._room.release()
        self.ended = line is None
        return line

    def _read(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            for line in _lines():
                if line.strip():
                    self._give(line.strip())
            self._give(None)

    def _give(self, line: str | None) -> None:
        self._room.acquire()
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


def _lines() -> Iterator[str]:
    begun = b""
    for piece in typed_pieces():
        *ended, begun = (begun + piece).split(b"\n")
        begun = begun[:MAX_LINE_BYTES]
        for line in ended:
            yield line[:MAX_LINE_BYTES].decode("utf-8", "replace")
    yield begun.decode("utf-8", "replace")
