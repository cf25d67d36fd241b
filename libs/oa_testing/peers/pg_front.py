"""What stands in front of a real Postgres and speaks just enough of its protocol to be taken for something else."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

_SSL_REQUEST = 80877103


class PgFront:
    """Forwards each connection to a server, unless told otherwise; `port` is where it listens."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.refusals: list[tuple[str, str]] = []
        """SQLSTATE and message for the next connections, one each."""
        self.own_keys = False
        """Whether clients get a process id of ours, as a pooler gives them one."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await _startup(reader, writer)
        if self.refusals:
            writer.write(_error(*self.refusals.pop(0)))
            await writer.drain()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            server_writer.write(startup)
            await _first_end(_copy(reader, server_writer), self._answers(server_reader, writer))
        finally:
            server_writer.close()

    async def _answers(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while True:
            kind, length = struct.unpack("!cI", await source.readexactly(5))
            body = await source.readexactly(length - 4)
            if kind == b"K" and self.own_keys:
                body = struct.pack("!I", 1) + body[4:]
            target.write(kind + struct.pack("!I", length) + body)
            await target.drain()


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The packet that opens a session; TLS is not spoken here."""
    while True:
        length, code = struct.unpack("!II", await reader.readexactly(8))
        rest = await reader.readexactly(length - 8)
        if code != _SSL_REQUEST:
            return struct.pack("!II", length, code) + rest
        writer.write(b"N")


def _error(sqlstate: str, message: str) -> bytes:
    fields = f"SFATAL\0VFATAL\0C{sqlstate}\0M{message}\0\0".encode()
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        target.write(data)
        await target.drain()


async def _first_end(*directions: Coroutine[None, None, None]) -> None:
    """When one direction ends, however it does, the other ends with it."""
    tasks = [asyncio.create_task(direction) for direction in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def pg_front(server_port: int) -> AsyncIterator[PgFront]:
    """In front of the server on `server_port`, for a block."""
    front = PgFront(server_port)
    server = await asyncio.start_server(front.accept, "127.0.0.1", 0)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        await front.close()
