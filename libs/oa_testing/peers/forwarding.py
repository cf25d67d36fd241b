"""Forwarding of connections to a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

_CHUNK_BYTES = 64 * 1024

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(host: str, port: int, **tls: Any) -> AsyncIterator[Stream]:
    """Open a connection for a block: it is closed after the block, and reset if the block fails. Raises OSError."""
    reader, writer = await asyncio.open_connection(host, port, **tls)
    try:
        yield reader, writer
    except BaseException:
        writer.transport.abort()
        raise
    writer.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on everything that is read, and the end of the stream. Raises OSError."""
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:  # TLS
        writer.close()


async def both_ways(*directions: Coroutine[None, None, None]) -> None:
    """Return when both have ended. When one fails, the other ends with it, and this raises the error."""
    tasks = [asyncio.create_task(direction) for direction in directions]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
