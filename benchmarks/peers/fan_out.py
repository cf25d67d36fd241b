"""Servers that fan events out, for benchmarks.khala_peers: `python -m benchmarks.peers.fan_out gateway|broadcast|nats`

Each prints "PORT PID" and then publishes what each line of standard input says: "rounds together interval_us topics
bytes". An event begins with the time at which it was published. "done" follows. The server for Centrifuge, which is
written in Go, does the same.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.khala_stage import EPOCH, OpenTokens, gateway
from benchmarks.sockets import allow_sockets
from oa_khala.wire import event_frame
from oa_platform.config.loading import load
from oa_platform.config.shared import LogSettings
from oa_platform.process.gc_pauses import calm_garbage_collection
from oa_platform.telemetry.logging import configure_logging
from oa_testing.peers.nats import nats_server
from oa_topics.watcher import Origin

MARK = b"@@"
MAX_TOPICS = 200
_SOCKETS = 4_000

Publish = Callable[[int, Sequence[bytes]], None]
"""Publishes events to the topic of that number."""


def topic(number: int) -> str:
    """The name of a topic in Khala."""
    return f"run:run_01J9ZQ6T5W3M8K2N4P7R1S0{number:03}:events"


def event(size: int) -> bytes:
    """An event of `size` bytes that holds the time of CLOCK_MONOTONIC."""
    return (MARK + b"%019d" % time.clock_gettime_ns(time.CLOCK_MONOTONIC)).ljust(size, b"x")


async def _commands(port: int, pid: int, publish: Publish) -> None:
    print(port, pid, flush=True)
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        rounds, together, interval_us, topics, size = map(int, line.split())
        due = loop.time()
        for number in range(rounds):
            await asyncio.sleep(due - loop.time())
            due += interval_us / 1e6
            publish(number % topics, [event(size) for _ in range(together)])
        print("done", flush=True)


async def _gateway() -> None:
    heads: dict[str, int] = defaultdict(int)
    async with gateway(OpenTokens(map(topic, range(MAX_TOPICS)))) as (hub, server, _):

        def publish(number: int, events: Sequence[bytes]) -> None:
            name = topic(number)
            first = heads[name] + 1
            heads[name] += len(events)
            frames = [event_frame(name, seq, one) for seq, one in enumerate(events, first)]
            hub.frames(name, EPOCH, first, frames, Origin(time.time_ns()))

        await _commands(server.port, os.getpid(), publish)


async def _broadcast() -> None:
    readers: dict[bytes, set[ServerConnection]] = defaultdict(set)

    async def serve_one(socket: ServerConnection) -> None:
        name = bytes(await socket.recv(decode=False))
        readers[name].add(socket)
        await socket.send(name)
        await socket.wait_closed()
        readers[name].discard(socket)

    def publish(number: int, events: Sequence[bytes]) -> None:
        for one in events:
            broadcast(readers[b"t%d" % number], one)

    async with serve(serve_one, "127.0.0.1", 0, compression=None) as server:
        await _commands(server.sockets[0].getsockname()[1], os.getpid(), publish)


async def _nats() -> None:
    async with nats_server() as server:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))  # the server keeps its core, its publisher leaves it
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')

        def publish(number: int, events: Sequence[bytes]) -> None:
            writer.write(b"".join(b"PUB t%d %d\r\n%b\r\n" % (number, len(one), one) for one in events))

        await _commands(server.port, server.pid, publish)


def main() -> None:
    """Entry point: the server that the argument names."""
    allow_sockets(_SOCKETS)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        configure_logging(load(LogSettings, {}), "khala_gateway", nowhere)
        calm_garbage_collection()
        uvloop.run({"gateway": _gateway, "broadcast": _broadcast, "nats": _nats}[sys.argv[1]]())


if __name__ == "__main__":
    main()
