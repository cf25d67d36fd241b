"""Ask a process whether it is ready: one HTTP GET on loopback, without a client library."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from oa_localstack.ports import HOST

PROBE_TIMEOUT_S = 2.0
_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What came back: `status` 0 when nothing did."""

    status: int
    body: str

    @property
    def ready(self) -> bool:
        """Whether it said yes."""
        return self.status == 200


async def ask(port: int, path: str = "/readyz", timeout_s: float = PROBE_TIMEOUT_S) -> Answer:
    """GET `path` from 127.0.0.1:`port`; never raises for what the other side does."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _get(port, path)
    except TimeoutError:
        return Answer(0, f"no answer within {timeout_s:g} s")
    except (OSError, ValueError) as error:
        return Answer(0, str(error))


async def _get(port: int, path: str) -> Answer:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read(_ANSWER_BYTES)).partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/"):
            raise ValueError("what answered does not speak HTTP")
        rest = b"" if body else await reader.read(_ANSWER_BYTES)
        return Answer(int(words[1]), (body + rest).decode(errors="replace").strip())
    finally:
        writer.transport.abort()
