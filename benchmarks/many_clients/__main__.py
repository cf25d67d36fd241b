"""The clients in Python, with the arguments of `main.go`."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.sockets import allow_sockets

_END_OF_HEAD = b"\r\n\r\n"


class _Client(asyncio.Protocol):
    """Says `first`, and `then` once it has been answered. It is complete when `expected` bytes have come after that."""

    def __init__(self, first: bytes, then: bytes, expected: int) -> None:
        self._first = first
        self._then = then
        self._missing = expected
        self.tcp: asyncio.Transport
        self.answered = asyncio.Event()
        self.complete = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say the first thing."""
        self.tcp = cast("asyncio.Transport", transport)
        self.tcp.write(self._first)

    def data_received(self, data: bytes) -> None:
        """Say the second thing, or count."""
        if not self.answered.is_set():
            assert data.endswith(_END_OF_HEAD), data
            self.answered.set()
            self.tcp.write(self._then)
            return
        self._missing -= len(data)
        if self._missing <= 0:
            self.complete.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report it: no server here ends a connection."""
        print("a client's connection has ended", file=sys.stderr)


async def _run(lines: Sequence[bytes], port: int, at_a_time: int, ping_every_s: int, expected: int) -> None:
    first, ping, *says = lines
    loop, waiting = asyncio.get_running_loop(), asyncio.Semaphore(at_a_time)

    async def one(text: bytes) -> _Client:
        async with waiting:
            _, client = await loop.create_connection(lambda: _Client(first, text, expected), "127.0.0.1", port)
            await client.answered.wait()
        return client

    clients = await asyncio.gather(*map(one, says))
    for client in clients:
        await client.complete.wait()
    print("all", flush=True)
    while True:
        await asyncio.sleep(ping_every_s or 3_600)
        for client in clients if ping_every_s else ():
            client.tcp.write(ping)


def main() -> None:
    """Entry point."""
    port, path, *numbers = sys.argv[1:]
    lines = [base64.b64decode(line) for line in Path(path).read_bytes().splitlines()]
    allow_sockets(len(lines))
    print("ready", flush=True)
    sys.stdin.readline()
    uvloop.run(_run(lines, int(port), *map(int, numbers)))


if __name__ == "__main__":
    main()
