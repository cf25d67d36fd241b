"""Clients of the servers in benchmarks.khala_peers: `python -m benchmarks.peers.listeners KIND PORT COUNT TOPICS`

Prints "ready" when all have subscribed, each to one of the topics in turn. Each line of standard input is answered with
what was received since the last one: the number of events, and their ages in ms.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from typing import cast

import uvloop

from benchmarks.peers.fan_out import MARK, topic
from benchmarks.sockets import UPGRADE, allow_sockets, client_message, masked
from oa_khala import frames

_MARKS = re.compile(MARK + rb"(\d{19})")
_MARK_BYTES = len(MARK) + 19
AT_A_TIME = 64
SAMPLES = 1_000
PLAIN_UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def _khala(number: int) -> tuple[bytes, bytes]:
    hello = frames.Hello("token", "dev_1", "bench/1")
    return UPGRADE + b"\r\n", client_message(hello) + client_message(frames.Subscribe(((topic(number), None),)))


def _centrifuge(number: int) -> tuple[bytes, bytes]:
    commands = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"t%d"}}' % number
    return PLAIN_UPGRADE % b"/connection/websocket", masked(0x81, commands)


def _broadcast(number: int) -> tuple[bytes, bytes]:
    return PLAIN_UPGRADE % b"/", masked(0x81, b"t%d" % number)


def _nats(number: int) -> tuple[bytes, bytes]:
    return b"", b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB t%d 1\r\nPING\r\n' % number


KINDS: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
    "gateway": _khala,
    "centrifuge": _centrifuge,
    "broadcast": _broadcast,
    "nats": _nats,
}
"""Kind -> what a client says first, and once it has been answered, to subscribe to the topic of that number."""


class Ages:
    """The ages of events that were received, in nanoseconds."""

    def __init__(self) -> None:
        self.ns: list[int] = []

    def report(self) -> str:
        """What was received since the last report, as JSON. Of many ages, about `SAMPLES` stand for all."""
        ages, self.ns = sorted(self.ns), []
        samples = [round(one / 1e6, 3) for one in ages[:: max(1, len(ages) // SAMPLES)]]
        return json.dumps({"received": len(ages), "ages_ms": samples})


class Listener(asyncio.Protocol):
    """Subscribes to one topic, and notes the age of what it gets."""

    def __init__(self, first: bytes, second: bytes, ages: Ages) -> None:
        self._first = first
        self._second = second
        self._ages = ages
        self._tail = b""
        self._writer: asyncio.Transport
        self.subscribed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say the first thing."""
        self._writer = cast("asyncio.Transport", transport)
        self._writer.write(self._first)

    def data_received(self, data: bytes) -> None:
        """Say the second thing to the first answer; take the second answer for the subscription; then count events."""
        if self._second:
            self._writer.write(self._second)
            self._second = b""
        elif not self.subscribed.is_set():
            self.subscribed.set()
        else:
            now_ns, data, end = time.clock_gettime_ns(time.CLOCK_MONOTONIC), self._tail + data, 0
            for found in _MARKS.finditer(data):
                end = found.end()
                self._ages.ns.append(now_ns - int(found[1]))
            self._tail = data[max(end, len(data) - _MARK_BYTES + 1) :]

    def connection_lost(self, exc: Exception | None) -> None:
        """Report it: no server here ends a connection."""
        print("a listener's connection has ended", file=sys.stderr)


async def _listen(kind: str, port: int, count: int, topics: int) -> None:
    loop, ages, free = asyncio.get_running_loop(), Ages(), asyncio.Semaphore(AT_A_TIME)

    async def one(number: int) -> None:
        async with free:
            said = KINDS[kind](number % topics)
            _, listener = await loop.create_connection(lambda: Listener(*said, ages), "127.0.0.1", port)
            await listener.subscribed.wait()

    await asyncio.gather(*map(one, range(count)))
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        print(ages.report(), flush=True)


def main() -> None:
    """Entry point."""
    kind, port, count, topics = sys.argv[1:]
    allow_sockets(int(count))
    uvloop.run(_listen(kind, int(port), int(count), int(topics)))


if __name__ == "__main__":
    main()
