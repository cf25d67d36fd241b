"""What does one delivery cost the gateway, in CPU time, when many watch the same topic?

    python -m benchmarks.khala_fanout [--subscribers 1000] [--rounds 100] [--payload 200] [--json FILE]

The real gateway (hub, connections, sockets on uvloop) against subscribers in another process that read and discard.
The floor in the same run: a loop of bare `send()` calls of the same bytes on as many plain sockets, to the same reader.
CPU time of this process, kernel included, per frame and subscriber. Frames that come together leave in one write; from
two frames a write on, a gateway may cost less than one `send()` a frame.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import structlog
import uvloop

from benchmarks.measure import Figures, report
from benchmarks.sockets import Subscriber, allow_sockets
from oa_khala.frames import TopicState
from oa_khala.server.admission import Grant
from oa_khala.server.limits import SessionLimits
from oa_khala.wire import event_frame
from oa_platform.config.parsers import Address
from oa_platform.system.clock import SystemClock
from oa_testing.metrics import value_of
from services.khala_gateway.admission.app import Admission, LiveTokens
from services.khala_gateway.admission.domain import OriginPolicy
from services.khala_gateway.admission.limits import AdmissionLimits
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.flusher import Flusher
from services.khala_gateway.connections.metrics import DELIVERED
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.domain import binary_message
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.feeds.metrics import SUBSCRIPTIONS
from services.khala_gateway.sockets.limits import PortLimits
from services.khala_gateway.sockets.ws_door.server import WebSocketServer
from services.khala_gateway.sources.app import HistoryPage, WatchedTopic
from services.khala_gateway.wiring import steady_wall_ms

TOPIC = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
USER = "usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X"
TOGETHER = (1, 10, 50)


class OpenTokens:
    """Takes any token: what it costs to verify one is not the question here."""

    def __init__(self) -> None:
        self._count = 0

    async def verify(self, token: str) -> Grant:
        """A grant of its own for everybody."""
        self._count += 1
        scopes, topics = frozenset({"runs.read"}), frozenset({TOPIC})
        return Grant(USER, "", scopes, topics, "ses_1", "", f"jti_{self._count}", 1 << 45)


class LocalSource:
    """A source in this process: what an upstream costs is not the question here."""

    def __init__(self) -> None:
        self.hub: FeedHub

    def add(self, topics: Iterable[str]) -> None:
        """Each topic stands at 0."""
        for topic in topics:
            watched = WatchedTopic(topic, TopicState("e1", 0, 0), USER, "")
            asyncio.get_running_loop().call_soon(self.hub.watched, watched)

    def remove(self, topics: Iterable[str]) -> None:
        """Nothing to do."""

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        """Nobody falls behind here."""
        raise NotImplementedError


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[tuple[FeedHub, WebSocketServer]]:
    """A running gateway."""
    source, limits = LocalSource(), HubLimits()
    sources = {"runtime": source, "projector": source}
    hub = source.hub = FeedHub(limits, sources, random.random)
    now_ms = steady_wall_ms(SystemClock())
    dependencies = Dependencies(
        hub=hub,
        replays=ReplayReader(sources, limits.page_frames, limits.page_bytes),
        confirmations=Confirmations(sources, limits.concurrent_confirmations),
        tokens=OpenTokens(),
        live_tokens=LiveTokens(),
        flusher=Flusher(asyncio.get_running_loop(), 0.0),
        limits=SessionLimits(),
        now_ms=now_ms,
        jitter=random.random,
    )
    admission = Admission(OriginPolicy(()), AdmissionLimits(handshake_burst=1 << 20), now_ms)
    port = PortLimits(drain_window_ms=0)
    async with WebSocketServer(Address("127.0.0.1", 0), dependencies, admission, port) as server, hub:
        yield hub, server


async def measure_gateway(subscribers: int, rounds: int, payload: int) -> list[Figures]:
    """One row for each number of frames that come together."""
    async with gateway() as (hub, server):
        reader = await asyncio.create_subprocess_exec(*_reader_command("khala", server.port, subscribers))
        try:
            async with asyncio.timeout(60):
                while _subscribed() < subscribers:
                    await asyncio.sleep(0.01)
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
        target = _delivered() + subscribers * together
        began = time.process_time()
        hub.frames(TOPIC, "e1", first, batch)
        while _delivered() < target:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        cpu_s += time.process_time() - began
        first += together
        # The reader has the other core; what it has not read yet would show as a full socket.
        await asyncio.sleep(0.005)
    return cpu_s, head


def measure_floor(subscribers: int, rounds: int, payload: int) -> Figures:
    """Bare `send()` of one frame to each of as many sockets."""
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


def _delivered() -> float:
    return value_of(DELIVERED)


def _subscribed() -> float:
    return value_of(SUBSCRIPTIONS.labels("run_events"))


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
    """Entry of `python -m benchmarks.khala_fanout`."""
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
