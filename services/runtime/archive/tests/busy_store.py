"""What no S3 server does when it is asked to: 503 to so many requests, before it answers them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oa_localstack.installation.ports import HOST
from oa_testing.peers.forwarding import both_ways, connected, forward
from oa_testing.peers.listener import Listener

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_BUSY = b"HTTP/1.1 503 Slow Down\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_SLOW_DOWN), _SLOW_DOWN)


class BusyStore:
    """In front of a server. `busy`: how many of the next connections hear 503; the others are forwarded."""

    def __init__(self, server_port: int, busy: int) -> None:
        self._server_port = server_port
        self.busy = busy
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.busy:
            self.busy -= 1
            await _read_request(reader)
            writer.write(_BUSY)
            await writer.drain()
            return
        async with connected(HOST, self._server_port) as (server_reader, server_writer):
            await both_ways(forward(reader, server_writer), forward(server_reader, writer))


async def _read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    await reader.readexactly(int(length[1]) if length else 0)


@asynccontextmanager
async def busy_store(server_port: int, busy: int) -> AsyncIterator[BusyStore]:
    """In front of the server on `server_port`, for a block."""
    store = BusyStore(server_port, busy)
    async with Listener(store.serve) as listener:
        store.port = listener.port
        yield store
