"""How many bytes of a delivery does compression save, and what CPU time does it cost the gateway?

    python -m benchmarks.khala_deflate [--subscribers 1000] [--rounds 100] [--json FILE]

The real gateway against subscribers in another process that read and discard. It sends the same events, of several
sizes, to subscribers without compression and to subscribers with it. Events are pieces of this repository's documents.
CPU time of this process, kernel included, and bytes written, for each event and subscriber.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import uvloop

from benchmarks.khala_fanout import deliver
from benchmarks.khala_stage import TOPIC, at_the_head, gateway
from benchmarks.measure import Figures, report
from benchmarks.sockets import Subscriber, allow_sockets
from oa_khala.wire import event_frame
from oa_testing.metrics import value_of
from openagents.runtime.v1 import event_pb2
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.metrics import DELIVERED_BYTES
from services.khala_gateway.sockets.limits import SocketLimits

SIZES = (300, 1_000, 4_000, 16_000)
LIMITS = SocketLimits(deflate_from_bytes=0)
_DOCUMENTS = Path(__file__).parents[1] / "docs" / "protocol"


def texts() -> bytes:
    """Text written by people."""
    return b"".join(path.read_bytes() for path in sorted(_DOCUMENTS.glob("*.md")))


def event(text: bytes, seq: int, size: int) -> bytes:
    """The frame of an event in which an agent says `size` bytes of `text`, others for each seq."""
    begin = seq * 997 % (len(text) - size)
    said = event_pb2.RunEvent(run_id=TOPIC.split(":")[1], seq=seq, lease_epoch=1, schema_version=1)
    said.body.text_delta.stream = event_pb2.TEXT_STREAM_ASSISTANT
    said.body.text_delta.data = text[begin : begin + size]
    return event_frame(TOPIC, seq, said.SerializeToString(deterministic=True))


async def measured(subscribers: int, rounds: int, sizes: Sequence[int] = SIZES) -> list[Figures]:
    """One row for each size, with and without compression."""
    rows: list[Figures] = []
    # A topic that nobody has followed for a while is watched anew, from the end of its source's history.
    history: list[bytes] = []
    async with gateway(history=history, socket=LIMITS) as (hub, server, _):
        for way in ("plain", "deflate"):
            async with _readers(way, hub, server.port, subscribers):
                rows += [await _row(hub, history, way, size, rounds, subscribers) for size in sizes]
    return rows


async def _row(hub: FeedHub, history: list[bytes], way: str, size: int, rounds: int, subscribers: int) -> Figures:
    text, first = texts(), len(history) + 1
    frames = [event(text, seq, size) for seq in range(first, first + rounds)]
    before, cpu_s = value_of(DELIVERED_BYTES), 0.0
    for seq, frame in enumerate(frames, first):
        history.append(frame)
        cpu_s += await deliver(hub, seq, [frame], subscribers)
    deliveries = rounds * subscribers
    sent = (value_of(DELIVERED_BYTES) - before) / deliveries
    note = f"{sent:,.0f} bytes, {cpu_s / deliveries * 1e6:.2f} µs a delivery"
    return Figures(f"khala_gateway, {way}", f"{size} bytes of text", deliveries, cpu_s, note=note)


@asynccontextmanager
async def _readers(way: str, hub: FeedHub, port: int, count: int) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "benchmarks.khala_deflate", "--read", way, str(port), str(count)]
    reader = await asyncio.create_subprocess_exec(*command)
    try:
        await at_the_head(hub, count)
        yield
    finally:
        reader.kill()
        await reader.wait()
        async with asyncio.timeout(60):
            while (feed := hub.feeds.get(TOPIC)) and feed.subscribers:
                await asyncio.sleep(0.01)


async def _read(way: str, port: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await loop.create_connection(lambda: Subscriber("token", TOPIC, deflate=way == "deflate"), "127.0.0.1", port)
    await asyncio.sleep(3600)


def main() -> None:
    """Entry point of `python -m benchmarks.khala_deflate`."""
    parser = argparse.ArgumentParser(description="Bytes and CPU time of one delivery, with and without compression.")
    parser.add_argument("--subscribers", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", nargs=3, metavar=("WAY", "PORT", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    allow_sockets(int(arguments.read[2]) if arguments.read else arguments.subscribers)
    if arguments.read:
        way, port, count = arguments.read
        uvloop.run(_read(way, int(port), int(count)))
        return
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    rows = uvloop.run(measured(arguments.subscribers, arguments.rounds))
    report(f"Compression for {arguments.subscribers} subscribers, CPU of the sender", rows, arguments.json)


if __name__ == "__main__":
    main()
