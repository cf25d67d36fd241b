"""What does one delivery cost the gateway, in CPU time, when many clients watch the same topic?

    python -m benchmarks.khala_fanout [--subscribers 1000] [--rounds 100] [--payload 200] [--json FILE]

The real gateway (hub, connections, sockets on uvloop) against subscribers in another process that read and discard.
The floor in the same run: a loop of bare `send()` calls of the same bytes on as many plain sockets, to the same reader.
CPU time of this process, kernel included, per frame and subscriber. Frames that arrive together leave in one write:
with two or more frames in a write, a gateway may cost less than one `send()` per frame.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop

from benchmarks.khala_stage import EPOCH, TOPIC, at_the_head, delivered, gateway
from benchmarks.measure import Figures, report
from benchmarks.sockets import Subscriber, allow_sockets
from oa_khala.wire import event_frame
from oa_topics.watcher import Origin
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.domain import binary_message

TOGETHER = (1, 10, 50)


async def measure_gateway(subscribers: int, rounds: int, payload: int) -> list[Figures]:
    """One row for each number of frames that arrive together."""
    async with gateway() as (hub, server, _):
        reader = await asyncio.create_subprocess_exec(*_reader_command("khala", server.port, subscribers))
        try:
            await at_the_head(hub, subscribers)
            rows, head = [], 0
            for together in TOGETHER:
                cpu_s, head = await _deliver(hub, head, subscribers, rounds, together, payload)
                deliveries = rounds * together * subscribers
                rows.append(Figures("khala_gateway", f"{together} together", deliveries, cpu_s))
            return rows
        finally:
            reader.kill()
            await reader.wait()


async def _deliver(
    hub: FeedHub, head: int, subscribers: int, rounds: int, together: int, payload: int
) -> tuple[float, int]:
    data = bytes(payload)
    batches = []
    for _ in range(rounds):
        batches.append([event_frame(TOPIC, head + index, data) for index in range(1, together + 1)])
        head += together
    first, cpu_s = head - rounds * together + 1, 0.0
    for batch in batches:
        cpu_s += await deliver(hub, first, batch, subscribers)
        first += together
    return cpu_s, head


async def deliver(hub: FeedHub, first_seq: int, batch: Sequence[bytes], subscribers: int) -> float:
    """The CPU time, in seconds, until all of `batch` has been handed to all subscribers."""
    target = delivered() + subscribers * len(batch)
    began = time.process_time()
    hub.frames(TOPIC, EPOCH, first_seq, batch, Origin(time.time_ns()))
    while delivered() < target:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    cpu_s = time.process_time() - began
    # Lets the reader on the other core catch up: bytes that it has not read yet would show as a full socket.
    await asyncio.sleep(0.005)
    return cpu_s


def measure_floor(subscribers: int, rounds: int, payload: int) -> Figures:
    """Measure a bare `send()` of one frame to each of as many sockets."""
    message = binary_message(event_frame(TOPIC, 1, bytes(payload)))
    with socket.create_server(("127.0.0.1", 0), backlog=subscribers) as listener:
        port = listener.getsockname()[1]
        reader = subprocess.Popen(_reader_command("plain", port, subscribers))
        sockets = [listener.accept()[0] for _ in range(subscribers)]
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            cpu_s = 0.0
            for _ in range(rounds):
                began = time.process_time()
                for one in sockets:
                    one.send(message)
                cpu_s += time.process_time() - began
                time.sleep(0.005)
        finally:
            reader.kill()
            reader.wait()
            for one in sockets:
                one.close()
    return Figures("bare send()", "1 a call", rounds * subscribers, cpu_s)


def _reader_command(mode: str, port: int, count: int) -> Sequence[str]:
    return [sys.executable, "-m", "benchmarks.khala_fanout", "--read", mode, str(port), str(count)]


# ------------------------------------------------------------------------------------------------- the reader's process


async def _read(mode: str, port: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    reader = (lambda: Subscriber("token", TOPIC)) if mode == "khala" else asyncio.Protocol
    for _ in range(count):
        await loop.create_connection(reader, "127.0.0.1", port)
    await asyncio.sleep(3600)


# ------------------------------------------------------------------------------------------------- command line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU time of one delivery, beside a bare send().")
    parser.add_argument("--subscribers", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--payload", type=int, default=200, help="bytes of an event")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", nargs=3, metavar=("MODE", "PORT", "COUNT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Entry point of `python -m benchmarks.khala_fanout`."""
    arguments = _arguments()
    allow_sockets(int(arguments.read[2]) if arguments.read else arguments.subscribers)
    if arguments.read:
        mode, port, count = arguments.read
        uvloop.run(_read(mode, int(port), int(count)))
        return
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    sizes = arguments.subscribers, arguments.rounds, arguments.payload
    floor = measure_floor(*sizes)
    rows = [floor, *uvloop.run(measure_gateway(*sizes))]
    title = f"Fan-out to {arguments.subscribers} subscribers, {arguments.payload} bytes, CPU of the sender"
    report(title, [_with_note(row, floor) for row in rows], arguments.json)


def _with_note(row: Figures, floor: Figures) -> Figures:
    cost, least = row.seconds / row.events, floor.seconds / floor.events
    note = f"{cost * 1e6:.2f} µs a delivery, {cost / least:.2f}x floor"
    return Figures(row.subject, row.setting, row.events, row.seconds, note=note)


if __name__ == "__main__":
    main()
