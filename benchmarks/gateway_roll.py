"""What do clients notice when two gateways are restarted one after the other? `python -m benchmarks.gateway_roll`

Two gateways, each a process of its own, get a run's events from a source in this process, which commits at a steady
pace. Clients of the client core follow that run; they reach the gateways as through a load balancer: in turn, and only
those that are ready. Then each gateway gets SIGTERM, drains, and is started again, one after the other.

- **still** (floor): nothing is restarted.
- **drained**: from the signal until the gateway is ready again, and all clients are where they belong.

Latencies are the longest time between two events meanwhile of each client that came back, and in `still` of each
client: about the pause between two. The note says how many came back, what it was for those that could stay (all of
them share the machine with a gateway that starts), and what was lost or came twice: events that a client handed out
after a gap, or again. Below, when they came back, beside the plan: a drain spreads its closes evenly over
`OA_WS_DRAIN_WINDOW_MS`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import grpc.aio
import httpx
import uvloop

from benchmarks.khala_connect import tokens
from benchmarks.khala_stage import EPOCH, TOPIC, USER
from benchmarks.measure import Figures, report
from benchmarks.sockets import LET_ALL_IN, allow_sockets
from oa_base.refusal import Refusal
from oa_client.core.models import SyncGrant
from oa_client.core.store import MemoryStore
from oa_client.cpython.network import WebSockets
from oa_client.follow.subscription import Subscription
from oa_client.follow.updates import Applied, Connection
from oa_client.transport import Socket, SocketClosed
from oa_khala.frames import TopicState
from oa_khala.topics import Source, Topic
from oa_platform.auth.keys import SigningKey, generate_key, to_jwks
from oa_platform.process.gc_pauses import calm_garbage_collection
from oa_runlog.proof.chain import chain_next, chain_start
from oa_testing.plain_http import plain_http
from oa_testing.postgres import DEVELOPMENT, REPOSITORY, free_port
from oa_topics.delivery_checks import DeliveryChecks
from oa_topics.hub import TopicHub
from oa_topics.servicer import TopicApi
from oa_topics.store import StateAt, TopicDescription, TopicLimits
from openagents.sync.v1 import topic_service_pb2_grpc
from services.khala_gateway.admission.domain import PATH

PATIENCE_S = 120.0
PAYLOAD = bytes(200)
BINS = 12
"""Bins of the histogram over the window; later times have bins of the same width."""
_RUN_ID = TOPIC.split(":")[1]


# ------------------------------------------------------------------------------------------------- the source


class _Run:
    """A `TopicStore` of one run, in memory."""

    source: Source = "runtime"

    def __init__(self) -> None:
        self.chains = [chain_start(_RUN_ID)]

    @property
    def head(self) -> int:
        return len(self.chains) - 1

    def append(self) -> tuple[int, bytes]:
        """Append one more event. Returns its seq and bytes."""
        self.chains.append(chain_next(self.chains[-1], PAYLOAD))
        return self.head, PAYLOAD

    async def epoch(self) -> str:
        """See TopicStore."""
        return EPOCH

    async def describe(self, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        """See TopicStore."""
        state = TopicState(EPOCH, 0, self.head)
        return {topic: TopicDescription(topic, state, USER) for topic in topics if str(topic) == TOPIC}

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        return [(seq, PAYLOAD) for seq in range(after_seq + 1, min(self.head, after_seq + max_events) + 1)]

    async def snapshot(self, topic: Topic, max_bytes: int) -> StateAt | None:
        """See TopicStore."""
        return None

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore."""
        return self.chains[seq]

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        return Refusal("internal", f"{topic} has no {seq}")


class _Unreported:
    def watching(self, difference: int) -> None:
        """See HubReport."""

    def dropped(self, frames: int) -> None:
        """See HubReport."""

    def failed(self, topic: str, error: Exception) -> None:
        """See HubReport."""
        raise error


@asynccontextmanager
async def _source(run: _Run, pause_s: float) -> AsyncIterator[int]:
    """Serve a TopicService whose run gets an event after each `pause_s`, for a block; yields its port."""
    hub, number = TopicHub(run, TopicLimits(), _Unreported()), 0

    async def check() -> None:
        nonlocal number
        number += 1
        checks.heard(number)

    async def commit() -> None:
        while True:
            hub.publish(TOPIC, [run.append()])
            await asyncio.sleep(pause_s)

    checks = DeliveryChecks(check)
    server = grpc.aio.server()
    api = TopicApi(hub, checks, lambda method, refusal: None)
    topic_service_pb2_grpc.add_TopicServiceServicer_to_server(api, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    working = [asyncio.create_task(work) for work in (hub.run(), checks.run(), commit())]
    try:
        yield port
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await server.stop(0)


# ------------------------------------------------------------------------------------------------- the gateways


class _Gateway:
    """One gateway: a process on fixed ports, which can be started repeatedly."""

    def __init__(self, folder: Path, key: SigningKey, source_port: int, window_ms: int) -> None:
        base = free_port((0, 1, 2))
        self._ops_port, self.url = base + 2, f"ws://127.0.0.1:{base}{PATH}"
        self._log = folder / f"gateway-{base}.log"
        keys = folder / f"keys-{base}.json"
        keys.write_text(json.dumps(to_jwks([key.public_key])), "utf-8")
        self._env = {
            **os.environ,
            **DEVELOPMENT,
            **LET_ALL_IN,
            "PYTHONPATH": os.pathsep.join(str(REPOSITORY / root) for root in (".", "libs", "gen")),
            "OA_SERVICE_TOKEN": "the gateway's",
            "OA_WS_ADDRESS": f"127.0.0.1:{base}",
            "OA_GRPC_ADDRESS": f"127.0.0.1:{base + 1}",
            "OA_OPS_ADDRESS": f"127.0.0.1:{self._ops_port}",
            # There is no control: the keys are in the file.
            "OA_CONTROL_URL": "http://127.0.0.1:1",
            "OA_JWKS_CACHE_FILE": str(keys),
            "OA_RUNTIME_GRPC": f"127.0.0.1:{source_port}",
            "OA_PROJECTOR_GRPC": f"127.0.0.1:{source_port}",
            "OA_WS_DRAIN_WINDOW_MS": str(window_ms),
            "OA_LOG_LEVEL": "warning",
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and return when it is ready."""
        with self._log.open("ab") as log:
            command = (sys.executable, "-m", "services.khala_gateway")
            # Not with the loop: uvloop forks, which a process with busy gRPC threads does not always survive.
            self._process = await asyncio.to_thread(
                subprocess.Popen, command, env=self._env, cwd=REPOSITORY, stdout=log, stderr=log
            )
        async with asyncio.timeout(PATIENCE_S), plain_http(timeout_s=PATIENCE_S) as http:
            while not await self._ready(http):
                if (code := self._process.poll()) is not None:
                    raise self._ended(code)
                await asyncio.sleep(0.02)

    async def drain(self) -> None:
        """Send SIGTERM, and wait until the process has ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            code = await asyncio.to_thread(self._process.wait)
        if code:
            raise self._ended(code)

    async def stop(self) -> None:
        """Kill the process if it runs."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _ended(self, code: int) -> RuntimeError:
        return RuntimeError(f"a gateway has ended with {code}: {self._log.read_text('utf-8')[-2_000:]}")

    async def _ready(self, http: httpx.AsyncClient) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (await http.get(f"http://127.0.0.1:{self._ops_port}/readyz")).status_code == 200
        return False


# ------------------------------------------------------------------------------------------------- the clients


class _Balancer:
    """`Sockets` to the gateways that are ready, in turn."""

    def __init__(self) -> None:
        self.ready: list[str] = []
        self._sockets = WebSockets()
        self._turn = 0

    async def open(self, url: str, subprotocol: str) -> Socket:
        """See Sockets."""
        if not self.ready:
            raise SocketClosed("no gateway is ready")
        self._turn += 1
        return await self._sockets.open(self.ready[self._turn % len(self.ready)], subprotocol)


class _Tokens:
    """Mints sync tokens as control does, without control."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    async def sync_token(self, topics: Sequence[str], *, surface: str, ttl_seconds: int = 0) -> SyncGrant:
        """See SyncTokens."""
        (token,) = tokens(self._key, [TOPIC])
        return SyncGrant(token, frozenset(topics), 600_000, (), "ws://balancer")


@dataclass
class _Client:
    """A client that follows the run, and what it sees. Times are of the monotonic clock."""

    came_s: list[float] = field(default_factory=list)
    opened_s: list[float] = field(default_factory=list)
    seq: int = 0
    lost: int = 0
    doubled: int = 0

    async def follow(self, number: int, key: SigningKey, balancer: _Balancer) -> None:
        """Follow the run until canceled."""
        mint, store = _Tokens(key), MemoryStore()
        async with Subscription(f"dev_{number}", "oa-bench/0", mint, balancer, store) as subscription:
            await subscription.follow(TOPIC)
            async for update in subscription.updates():
                if isinstance(update, Connection) and update.open:
                    self.opened_s.append(time.perf_counter())
                elif isinstance(update, Applied):
                    self._take(update.seq)

    def _take(self, seq: int) -> None:
        self.came_s.append(time.perf_counter())
        self.doubled += seq <= self.seq
        self.lost += max(0, seq - self.seq - 1)
        self.seq = max(self.seq, seq)

    def longest_ms(self, began_s: float, ended_s: float) -> float:
        """The longest time without an event between two moments, in milliseconds."""
        return longest_ms(self.came_s, began_s, ended_s)


def longest_ms(came_s: Sequence[float], began_s: float, ended_s: float) -> float:
    """The longest time without an event between two moments, in ms; one that began before them counts in full."""
    inside = [moment for moment in came_s if began_s <= moment <= ended_s]
    before = [moment for moment in came_s if moment < began_s][-1:] or [began_s]
    moments = [*before, *inside, ended_s]
    return max(later - earlier for earlier, later in pairwise(moments)) * 1000


def histogram(back_ms: Sequence[float], window_ms: int) -> Iterator[str]:
    """Lines that show when clients came back after a signal, beside the plan: the same number in each bin."""
    width = max(1.0, window_ms / BINS)
    counts: dict[int, int] = {}
    for moment_ms in back_ms:
        counts[int(moment_ms / width)] = counts.get(int(moment_ms / width), 0) + 1
    most = max([*counts.values(), 1])
    for number in range(max([BINS - 1, *counts]) + 1):
        came, planned = counts.get(number, 0), len(back_ms) / BINS if number < BINS else 0.0
        yield f"{number * width:8,.0f} ms  {came:5d}  planned {planned:6.1f}  {'#' * round(came * 50 / most)}"


# ------------------------------------------------------------------------------------------------- the measurement


@dataclass(frozen=True)
class Roll:
    """One restart: a row of the table, and when clients came back, in milliseconds after the signal."""

    figures: Figures
    back_ms: Sequence[float]


class _Scene:
    """Two gateways, and the clients that they serve."""

    def __init__(self, run: _Run, balancer: _Balancer, clients: Sequence[_Client]) -> None:
        self._run = run
        self._balancer = balancer
        self._clients = clients

    async def all_served(self) -> None:
        """Wait until every client has everything that is in the log now."""
        head = self._run.head
        async with asyncio.timeout(PATIENCE_S):
            while any(client.seq < head for client in self._clients):
                await asyncio.sleep(0.02)

    async def still(self, seconds: float) -> Roll:
        """Measure without a restart."""
        began_s = time.perf_counter()
        await asyncio.sleep(seconds)
        return self._roll("still", began_s)

    async def drained(self, gateway: _Gateway, name: str) -> Roll:
        """Drain a gateway and start it again. The balancer knows before it drains."""
        self._balancer.ready.remove(gateway.url)
        began_s = time.perf_counter()
        await gateway.drain()
        await gateway.start()
        self._balancer.ready.append(gateway.url)
        await self.all_served()
        return self._roll(name, began_s)

    def _roll(self, name: str, began_s: float) -> Roll:
        ended_s = time.perf_counter()
        clients = self._clients
        back = sorted((at - began_s) * 1000 for client in clients for at in client.opened_s if at >= began_s)
        gaps: dict[bool, list[float]] = {True: [], False: []}
        for client in clients:
            gaps[any(at >= began_s for at in client.opened_s)].append(client.longest_ms(began_s, ended_s))
        lost, doubled = sum(client.lost for client in clients), sum(client.doubled for client in clients)
        shown = gaps[True] or gaps[False]
        note = f"{len(back)} came back; longest {max(shown):,.0f} ms"
        if gaps[True] and gaps[False]:
            note += f", of the others {max(gaps[False]):,.0f} ms"
        note += f"; lost {lost}, doubled {doubled}"
        events = sum(began_s <= moment <= ended_s for client in clients for moment in client.came_s)
        return Roll(Figures(name, f"{len(clients)} clients", events, ended_s - began_s, shown, note), back)


async def measured(clients: int, events_per_s: float, window_ms: int, still_s: float) -> list[Roll]:
    """The floor, then each gateway."""
    key, run, balancer = generate_key(), _Run(), _Balancer()
    async with AsyncExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="oa-bench-")))
        port = await parts.enter_async_context(_source(run, 1 / events_per_s))
        gateways = [_Gateway(folder, key, port, window_ms) for _ in range(2)]
        for gateway in gateways:
            parts.push_async_callback(gateway.stop)
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        balancer.ready += [gateway.url for gateway in gateways]
        people = [_Client() for _ in range(clients)]
        following = asyncio.gather(*(one.follow(number, key, balancer) for number, one in enumerate(people)))
        parts.push_async_callback(_cancelled, following)
        scene = _Scene(run, balancer, people)
        await scene.all_served()
        await asyncio.sleep(still_s)  # until the work of connecting is done
        rolls = [await scene.still(still_s)]
        for number, gateway in enumerate(gateways, 1):
            rolls.append(await scene.drained(gateway, f"gateway {number} drained"))
        if following.done():
            following.result()
        return rolls


async def _cancelled(task: asyncio.Future[list[None]]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> None:
    """Measure, and print the table and the histograms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--events", type=float, default=10.0, help="a second")
    parser.add_argument("--window-ms", type=int, default=3_000, help="OA_WS_DRAIN_WINDOW_MS; its default is the same")
    arguments = parser.parse_args()
    allow_sockets(2 * arguments.clients)
    calm_garbage_collection()
    window_ms = arguments.window_ms
    rolls = uvloop.run(measured(arguments.clients, arguments.events, window_ms, still_s=window_ms / 1000))
    report("Two gateways restarted one after the other", [roll.figures for roll in rolls], arguments.json)
    for roll in rolls[1:]:
        print(f"\n{roll.figures.subject}: when clients came back")
        print("\n".join(histogram(roll.back_ms, window_ms)))


if __name__ == "__main__":
    main()
