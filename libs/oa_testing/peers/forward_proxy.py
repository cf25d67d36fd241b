"""A forward HTTP proxy for tests: what a company has between its people and the world."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class ForwardProxy:
    """Takes every host for this machine; `asked` has what it was asked for ("CONNECT a.example:9081")."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ForwardProxy]:
        """Listen on loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://user:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for writer in self._open:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            line = (await reader.readline()).decode()
            head = await _rest_of_head(reader)
            method, target, version = line.split()
            self.asked.append(f"{method} {target}")
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", parts.port)
            self._open.add(inner_writer)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:  # one request to a connection
                inner_writer.write(f"{method} {parts.path} {version}\r\nConnection: close\r\n".encode() + head)
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _rest_of_head(reader: asyncio.StreamReader) -> bytes:
    """Header lines and the empty one, without those that are about the connection."""
    kept = b""
    while True:
        line = await reader.readuntil(b"\n")
        if not line.lower().startswith((b"connection:", b"proxy-")):
            kept += line
        if line in (b"\r\n", b"\n"):
            return kept


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
