"""What no S3 server does when it is asked to: 503 to so many requests, before it answers them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_BUSY = b"HTTP/1.1 503 Slow Down\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_SLOW_DOWN), _SLOW_DOWN)


class BusyStore:
    """In front of a server. `busy`: how many of the next connections hear 503; the others are forwarded."""

    def __init__(self, server_port: int, busy: int) -> None:
        self._server_port = server_port
        self._forwarding: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self.busy = busy
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.busy:
            self.busy -= 1
            await _read_request(reader)
            writer.write(_BUSY)
            await writer.drain()
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        for source, target in ((reader, server_writer), (server_reader, writer)):
            self._forwarding[asyncio.create_task(_copy(source, target))] = [writer, server_writer]

    async def close(self) -> None:
        """Hang up."""
        for writers in self._forwarding.values():
            for writer in writers:
                writer.close()
        await asyncio.gather(*self._forwarding)


async def _read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    await reader.readexactly(int(length[1]) if length else 0)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def busy_store(server_port: int, busy: int) -> AsyncIterator[BusyStore]:
    """In front of the server on `server_port`, for a block."""
    store = BusyStore(server_port, busy)
    server = await asyncio.start_server(store.accept, "127.0.0.1", 0)
    store.port = server.sockets[0].getsockname()[1]
    try:
        yield store
    finally:
        server.close()
        await store.close()
