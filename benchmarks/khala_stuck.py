"""What do clients that never read cost the gateway, the system, and those that read?

    python -m benchmarks.khala_stuck [--readers 2000] [--stuck 2000] [--rate 4] [--payload 8000] [--json FILE]

The real gateway with its default limits. Readers, in a process of their own, and clients that subscribe and then never
read, in another, follow one topic, which gets events all the time. Half of the readers connect before the stuck clients
and half after them, so that both are mixed in the gateway.

The first table shows, second by second, the memory of the gateway's process, the memory that the system keeps for its
side of the connections (Linux, `sock_diag`), how many clients are connected, how many were closed as `slow_consumer`,
and the readers' latency: from before the event is given to the gateway until a reader has it, by one clock. The second
table has that latency for each stretch of time. Some of the stuck clients read again once they have been closed: they
must find the events without a hole, `slow_consumer` and the code 4008; the others are let go when `linger_ms` is over.
The other stretches are compared with the last one, which has no stuck clients.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.kernel_sockets import kernel_memory
from benchmarks.khala_stage import EPOCH, TOPIC, gateway, subscribed
from benchmarks.measure import Figures, report
from benchmarks.sockets import Subscriber, allow_sockets
from oa_khala.server.limits import SessionLimits
from oa_khala.wire import event_frame
from oa_testing.metrics import value_of
from services.khala_gateway.connections.metrics import CLOSES
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.sockets.limits import SocketLimits
from services.khala_gateway.sockets.ws_door.server import WebSocketServer

STEP_S = 1.0
PING_EACH_S = 12
PATIENCE_S = 300.0
WOKEN = 20
"""Number of stuck clients that read again once they have been closed."""
SHOWN = 20
_REASON = b"slow_consumer"
_CLOSE = bytes((0x88, 2 + len(_REASON))) + (4008).to_bytes(2, "big") + _REASON
_MAGIC = b"\xf9stamp\xfa:"
_STAMP = re.compile(re.escape(_MAGIC) + b"(.{8})(.{8})", re.DOTALL)
_STAMP_BYTES = len(_MAGIC) + 16
_MAX_LATENCIES = 1_000
_MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """The sizes of the benchmark."""

    readers: int
    stuck: int
    rate: float
    payload: int
    quiet_s: float
    """How long the readers are measured without the stuck clients."""


@dataclass(frozen=True)
class Sample:
    """The measurements of one moment."""

    at_s: float
    stretch: str
    gateway_mib: float
    system_mib: float
    connected: int
    closed: int
    events: int
    """Events that all readers together have got since the previous sample."""
    latencies_ms: Sequence[float]
    """An even selection of the readers' latencies."""

    def percentile(self, q: float) -> float:
        """The percentile of the readers' latencies since the previous sample."""
        return Figures("", "", 0, 0, self.latencies_ms).percentile(q)


# ------------------------------------------------------------------------------------------------- gateway's process


class _Child:
    """Clients in a process of their own, which takes commands, one a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, what: str) -> Any:
        """Send a command. Returns its answer, which is JSON."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self._process.stdout.readline())


@asynccontextmanager
async def _child(kind: str, port: int, most: int) -> AsyncIterator[_Child]:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "benchmarks.khala_stuck", "--clients", kind, str(port), str(most)]
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=_MIB)
    try:
        yield _Child(process)
    finally:
        process.kill()
        await process.wait()


class _Measuring:
    """Takes samples until it is stopped."""

    def __init__(self, sizes: Sizes, server: WebSocketServer, readers: _Child, stuck: _Child) -> None:
        self._sizes, self._server, self._readers, self._stuck = sizes, server, readers, stuck
        self._began_s = 0.0
        self._closed_before = closed()
        self.samples: list[Sample] = []
        self.found: dict[str, int] = {}

    @property
    def closed(self) -> int:
        """Number of connections that were closed because they took nothing."""
        return closed() - self._closed_before

    async def stretch(self, name: str, over: Callable[[], bool]) -> None:
        """Sample until it is `over`."""
        if not self.samples:
            await self._readers.ask("latencies")  # events before this belong to no stretch
            self._began_s = time.monotonic()
        last = False
        async with asyncio.timeout(PATIENCE_S):
            while not last:
                await asyncio.sleep(STEP_S)
                last = over()
                await self._sample(name)

    async def wake(self, count: int) -> None:
        """Have `count` of the stuck clients read again, until their connections end."""
        self.found = await self._stuck.ask(f"wake {count}")

    async def _sample(self, stretch: str) -> None:
        got = await self._readers.ask("latencies")
        kept = await self._stuck.ask("memory")
        resident, at_s = psutil.Process().memory_info().rss, time.monotonic() - self._began_s
        connected = len(self._server.sockets)
        if connected < self._sizes.readers:
            raise RuntimeError(f"{self._sizes.readers - connected} readers have lost their connection")
        self.samples.append(Sample(at_s, stretch, resident / _MIB, kept / _MIB, connected, self.closed, **got))


async def measured(
    sizes: Sizes, session: SessionLimits | None = None, socket: SocketLimits | None = None
) -> tuple[list[Sample], dict[str, int]]:
    """The samples, and the findings of the stuck clients that read again."""
    history: list[bytes] = []
    async with gateway(history=history, session=session, socket=socket) as (hub, server, _):
        comes = _child("readers", server.port, sizes.readers), _child("stuck", server.port, sizes.stuck)
        async with comes[0] as readers, comes[1] as stuck:
            flow = asyncio.create_task(_events(hub, history, sizes))
            try:
                measuring = _Measuring(sizes, server, readers, stuck)
                await _come(sizes, readers, stuck)
                await _stretches(sizes, measuring, server)
            finally:
                flow.cancel()
            return measuring.samples, measuring.found


async def _come(sizes: Sizes, readers: _Child, stuck: _Child) -> None:
    first, target = sizes.readers // 2, int(subscribed())
    for child, count in ((readers, first), (stuck, sizes.stuck), (readers, sizes.readers - first)):
        target += count
        await child.ask(f"come {count}")
        async with asyncio.timeout(PATIENCE_S):
            while subscribed() < target:
                await asyncio.sleep(0.01)


async def _stretches(sizes: Sizes, measuring: _Measuring, server: WebSocketServer) -> None:
    await measuring.stretch("stuck ones are there", lambda: measuring.closed >= sizes.stuck)
    await measuring.wake(min(WOKEN, sizes.stuck))
    await measuring.stretch("stuck ones are closed, and linger", lambda: len(server.sockets) <= sizes.readers)
    until_s = time.monotonic() + sizes.quiet_s
    await measuring.stretch("readers alone", lambda: time.monotonic() >= until_s)


async def _events(hub: FeedHub, history: list[bytes], sizes: Sizes) -> None:
    """Publish events at a fixed rate, whatever happens to them."""
    due_s = time.monotonic()
    for seq in itertools.count(1):
        stamp = _MAGIC + seq.to_bytes(8, "big") + time.monotonic_ns().to_bytes(8, "big")
        frame = event_frame(TOPIC, seq, stamp + bytes(sizes.payload - len(stamp)))
        history.append(frame)
        hub.frames(TOPIC, EPOCH, seq, [frame])
        due_s += 1 / sizes.rate
        await asyncio.sleep(due_s - time.monotonic())


def closed() -> int:
    """Number of connections that the gateways of this process have closed because they took nothing."""
    return int(value_of(CLOSES.labels(_REASON.decode())))


# ------------------------------------------------------------------------------------------------- clients' processes


class _Reader(Subscriber):
    """Notes the latency of each event, and checks that none is missing."""

    def __init__(self, latencies_ms: list[float]) -> None:
        super().__init__("token", TOPIC)
        self._latencies_ms = latencies_ms
        self._rest = b""
        self.seq = 0

    def received(self, data: bytes) -> None:
        """Look for events, which may arrive in pieces."""
        now_ns, data = time.monotonic_ns(), self._rest + data
        end = max(0, len(data) - _STAMP_BYTES)
        for stamp in _STAMP.finditer(data):
            seq = int.from_bytes(stamp[1], "big")
            assert not self.seq or seq == self.seq + 1, f"{seq} came after {self.seq}"
            self.seq, end = seq, max(end, stamp.end())
            self._latencies_ms.append((now_ns - int.from_bytes(stamp[2], "big")) / 1e6)
        self._rest = data[end:]


class _Stuck(_Reader):
    """Stops reading once it has been let in, until `wake`."""

    def __init__(self) -> None:
        super().__init__([])
        self.ended = asyncio.Event()
        self.told = False
        self._awake = False

    def wake(self) -> None:
        """Read everything that is there."""
        self._awake = True
        self._writer.resume_reading()

    def received(self, data: bytes) -> None:
        """The first data is the answer to the handshake; the last data says why the connection was closed."""
        super().received(data)
        self.told = self._rest.endswith(_CLOSE)
        if not self._awake:
            self._writer.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, which is expected."""
        self.ended.set()


class _Clients:
    """All clients of one process."""

    def __init__(self, kind: str, port: int) -> None:
        self._kind, self._port = kind, port
        self._latencies_ms: list[float] = []
        self._readers: list[_Reader] = []
        self._stuck: list[_Stuck] = []
        self._pinged = 0

    async def do(self, what: str) -> object:
        """Carry out one command."""
        name, _, count = what.partition(" ")
        if name == "come":
            for _ in range(int(count)):
                await asyncio.get_running_loop().create_connection(self._client, "127.0.0.1", self._port)
            return int(count)
        if name == "wake":
            return await self._wake(self._stuck[: int(count)])
        if name == "memory":
            memory = kernel_memory(self._port)
            return memory.sending_bytes + memory.receiving_bytes
        self._ping()
        found = sorted(self._latencies_ms)
        self._latencies_ms.clear()
        step = max(1, len(found) // _MAX_LATENCIES)
        return {"events": len(found), "latencies_ms": [round(one, 2) for one in found[step // 2 :: step]]}

    def _ping(self) -> None:
        """Send pings of a few readers at a time: each reader pings within a fifth of the time that it may be silent."""
        for _ in range(len(self._readers) // PING_EACH_S + 1):
            self._pinged += 1
            self._readers[self._pinged % len(self._readers)].ping()

    def _client(self) -> Subscriber:
        if self._kind == "readers":
            self._readers.append(_Reader(self._latencies_ms))
            return self._readers[-1]
        self._stuck.append(_Stuck())
        return self._stuck[-1]

    async def _wake(self, woken: Sequence[_Stuck]) -> dict[str, int]:
        for one in woken:
            one.wake()
        async with asyncio.timeout(PATIENCE_S):
            for one in woken:
                await one.ended.wait()
        told = [one.told for one in woken]
        return {"woken": len(woken), "told": sum(told), "events": sum(one.seq > 0 for one in woken)}


async def _serve(clients: _Clients) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await clients.do(line.strip())), flush=True)


# ------------------------------------------------------------------------------------------------- command line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Clients that never read, and those that do beside them.")
    parser.add_argument("--readers", type=int, default=2_000)
    parser.add_argument("--stuck", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=4.0, help="events a second")
    parser.add_argument("--payload", type=int, default=8_000, help="bytes of an event")
    parser.add_argument("--quiet-s", type=float, default=20.0, help="how long the readers are measured alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--clients", nargs=3, metavar=("KIND", "PORT", "MOST"), help=argparse.SUPPRESS)
    return parser.parse_args()


def stretches(samples: Sequence[Sample]) -> list[Figures]:
    """One row for each stretch, compared with the last one."""
    rows, began_s = [], 0.0
    for name, grouped in itertools.groupby(samples, key=lambda sample: sample.stretch):
        group = list(grouped)
        latencies = [one for sample in group for one in sample.latencies_ms]
        events, until_s = sum(sample.events for sample in group), group[-1].at_s
        rows.append(Figures("readers", name, events, until_s - began_s, latencies))
        began_s = until_s
    alone = rows[-1]
    return [_beside(row, alone) for row in rows]


def _beside(row: Figures, alone: Figures) -> Figures:
    ratios = [row.percentile(q) / alone.percentile(q) for q in (0.5, 0.99)]
    note = f"p50 {ratios[0]:.2f}x, p99 {ratios[1]:.2f}x of alone"
    return Figures(row.subject, row.setting, row.events, row.seconds, row.latencies_ms, note)


def _show(samples: Sequence[Sample]) -> None:
    table = Table(title="Second by second (some of them)", title_justify="left")
    for heading in ("s", "gateway MiB", "system MiB", "connected", "closed", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    changed = [one for before, one in itertools.pairwise(samples) if before.closed != one.closed]
    for sample in samples:
        if sample in changed or sample is samples[-1] or samples.index(sample) % max(1, len(samples) // SHOWN) == 0:
            figures = sample.gateway_mib, sample.system_mib, sample.connected, sample.closed
            latencies = [f"{sample.percentile(q):.1f}" for q in (0.5, 0.99)]
            table.add_row(f"{sample.at_s:.0f}", *(f"{figure:,.0f}" for figure in figures), *latencies)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    """Entry point of `python -m benchmarks.khala_stuck`."""
    arguments = _arguments()
    if arguments.clients:
        kind, port, most = arguments.clients
        allow_sockets(int(most))
        uvloop.run(_serve(_Clients(kind, int(port))))
        return
    allow_sockets(arguments.readers + arguments.stuck)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    given = arguments.readers, arguments.stuck, arguments.rate, arguments.payload, arguments.quiet_s
    samples, found = uvloop.run(measured(Sizes(*given)))
    _show(samples)
    print(
        f"{found['told']} of {found['woken']} that read again found slow_consumer and the code 4008 behind the events"
    )
    report(f"{arguments.readers} readers beside {arguments.stuck} that never read", stretches(samples))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(sample) for sample in samples]) + "\n")


if __name__ == "__main__":
    main()
