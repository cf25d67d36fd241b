"""A server in front of a real Postgres that speaks just enough of its protocol to be taken for something else."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oa_localstack.installation.ports import HOST
from oa_testing.peers.forwarding import both_ways, connected, forward
from oa_testing.peers.listener import Listener

_SSL_REQUEST = 80877103


class PgFront:
    """Forwards each connection to a server, unless told otherwise; `port` is where it listens."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.port = 0
        self.refusals: list[tuple[str, str]] = []
        """SQLSTATE and message for the next connections, one each."""
        self.own_keys = False
        """Whether clients get a process id of ours, as a pooler would give them one."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        startup = await _startup(reader, writer)
        if self.refusals:
            writer.write(_error(*self.refusals.pop(0)))
            await writer.drain()
            return
        async with connected(HOST, self._server_port) as (server_reader, server_writer):
            server_writer.write(startup)
            await both_ways(forward(reader, server_writer), self._answers(server_reader, writer))

    async def _answers(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while True:
            kind, length = struct.unpack("!cI", await source.readexactly(5))
            body = await source.readexactly(length - 4)
            if kind == b"K" and self.own_keys:
                body = struct.pack("!I", 1) + body[4:]
            target.write(kind + struct.pack("!I", length) + body)
            await target.drain()


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return the packet that opens a session; TLS is declined."""
    while True:
        length, code = struct.unpack("!II", await reader.readexactly(8))
        rest = await reader.readexactly(length - 8)
        if code != _SSL_REQUEST:
            return struct.pack("!II", length, code) + rest
        writer.write(b"N")


def _error(sqlstate: str, message: str) -> bytes:
    fields = f"SFATAL\0VFATAL\0C{sqlstate}\0M{message}\0\0".encode()
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


@asynccontextmanager
async def pg_front(server_port: int) -> AsyncIterator[PgFront]:
    """Run a front of the server on `server_port` for a block."""
    front = PgFront(server_port)
    async with Listener(front.serve) as listener:
        front.port = listener.port
        yield front
