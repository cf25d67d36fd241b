"""The standard input of a command: a pipe that is written only as fast as it is read."""

from __future__ import annotations

import asyncio
import os
from typing import cast

Size = tuple[int, int]
"""Size of a terminal: columns, rows."""


class Stdin(asyncio.BaseProtocol):
    """The writing end. Of the unread data, `buffer_bytes` and one piece wait here, and the rest in the kernel."""

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        self._transport: asyncio.WriteTransport | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._is_open = True

    @classmethod
    async def open(cls, buffer_bytes: int) -> tuple[Stdin, int]:
        """Open a pipe; return its writing end, and the file descriptor of its reading end, which the caller closes."""
        reading, writing = os.pipe()
        stdin = cls(buffer_bytes)
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_write_pipe(lambda: stdin, os.fdopen(writing, "wb", 0))
        except BaseException:
            os.close(reading)
            raise
        return stdin, reading

    async def write(self, data: bytes) -> bool:
        """Write, and wait until there is room for more. False once nobody reads any more: then the data is lost."""
        if self._is_open and self._transport is not None and data:
            self._transport.write(data)
            await self._room.wait()
        return self._is_open

    def end(self) -> None:
        """End the input: the command reads the end once it has read everything that was written."""
        if self._is_open and self._transport is not None:
            self._transport.close()

    def resize(self, size: Size) -> None:
        """Do nothing: a pipe has no size."""

    def close(self) -> None:
        """Forget what the command has not read, because it is over."""
        transport = self._transport
        if transport is None or not self._is_open:
            return
        if transport.get_write_buffer_size() or not transport.is_closing():  # else its end is on its way
            transport.abort()
        self._is_open = False
        self._room.set()

    # ------------------------------------------------------------------------------ asyncio.BaseProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=self._buffer_bytes)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: all readers have closed their end, or we have closed ours."""
        self._is_open = False
        self._room.set()
