"""A forward HTTP proxy for tests, like the one that a company has between its people and the world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from oa_localstack.installation.ports import HOST
from oa_testing.peers.forwarding import both_ways, connected, forward
from oa_testing.peers.listener import Listener


class ForwardProxy:
    """Takes every host for this machine; `asked` has the requests that came ("CONNECT a.example:9081")."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ForwardProxy]:
        """Listen on loopback."""
        async with Listener(self._serve) as listener:
            self.url = f"http://user:secret@{HOST}:{listener.port}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        head = await _rest_of_head(reader)
        method, target, version = line.split()
        self.asked.append(f"{method} {target}")
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        assert parts.port is not None
        async with connected(HOST, parts.port) as (inner_reader, inner_writer):
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:  # one request per connection
                inner_writer.write(f"{method} {parts.path} {version}\r\nConnection: close\r\n".encode() + head)
            await both_ways(forward(reader, inner_writer), forward(inner_reader, writer))


async def _rest_of_head(reader: asyncio.StreamReader) -> bytes:
    """Return the header lines and the empty line, without headers that are about the connection."""
    kept = b""
    while True:
        line = await reader.readuntil(b"\n")
        if not line.lower().startswith((b"connection:", b"proxy-")):
            kept += line
        if line in (b"\r\n", b"\n"):
            return kept
