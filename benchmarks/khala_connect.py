"""What does it cost the gateway to let clients in, and to bring them up to date when all reconnect at once?

    python -m benchmarks.khala_connect [--clients 1000] [--storm 3000] [--missed 300] [--idle 5000] [--json FILE]

The real gateway (tokens, hub, connections, sockets on uvloop) on one core, against clients in another process on the
other core, which read and discard (`many_clients`). CPU time of the gateway's process, kernel included. Each client has
a token of its own, which is verified.

- **connect and subscribe**: until all are subscribed, and the memory that each client then takes. All follow the same
  topic, or each follows one of its own.
- **storm**: all reconnect at once with the same cursor, and get the events that they missed. The note says how often
  the source was read.
- **idle**: all are subscribed, and nothing happens but one heartbeat for each. In a second row, each client also sends
  a ping as often as our clients do, and the answer takes the place of its heartbeat.
- **Centrifuge** (peer): the library behind Centrifugo, in Go, under the same clients: connecting and subscribing
  without a token, and the storm, out of its history in memory. It is left out where there is no Go.
- **websockets** (peer): the handshake alone by the library `websockets`, which answers the upgrade and then discards
  all input; no token, no frame, no topic.
- **bare Ed25519** (floor): one check of one signature by libsodium.
- **bare send()** (floor): as many bytes as a heartbeat has, once to each idle connection, as spread as heartbeats are.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import uvloop
from nacl.bindings import crypto_sign_open
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from benchmarks.khala_stage import EPOCH, TOPIC, USER, delivered, gateway, subscribed
from benchmarks.many_clients import PATIENCE_S, go_program, many_clients
from benchmarks.measure import Figures, on_core, report
from benchmarks.peers.listeners import PLAIN_UPGRADE
from benchmarks.peers.processes import CENTRIFUGE, cpu_s_of, line_of, server_process
from benchmarks.sockets import UPGRADE, allow_sockets, client_message, masked
from oa_base.identity import ISSUER, KHALA_AUDIENCE, SYNC_CLAIMS_VERSION
from oa_khala import frames
from oa_khala.frames import Cursor, Form
from oa_khala.server.limits import SessionLimits
from oa_khala.topics import run_events
from oa_khala.wire import event_frame
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import SigningKey, generate_key
from oa_platform.auth.tokens import TokenVerifier, sign_token
from oa_platform.config.loading import load
from oa_platform.config.shared import LogSettings
from oa_platform.process.gc_pauses import calm_garbage_collection
from oa_platform.system.clock import SystemClock
from oa_platform.system.ids import new_id
from oa_platform.telemetry.logging import configure_logging
from openagents.control.v1.claims_pb2 import SyncTokenClaims
from services.khala_gateway.admission.door import SyncTokenVerifier
from services.khala_gateway.sockets.ws_door.server import WebSocketServer
from services.khala_gateway.wiring import steady_wall_ms

PAYLOAD_BYTES = 200
FIRST_CLIENTS = 100
"""Number of clients that are there before the measured ones come."""
FIRST = UPGRADE + b"\r\n"
ANYTHING = client_message(frames.Ping(1))
"""For a server that discards what it gets."""
IDLE_S = SessionLimits().heartbeat_interval_ms / 1000
"""So that each client has one heartbeat."""
PING_EVERY_S = SessionLimits().idle_timeout_ms // 3_000
"""How often our clients show a gateway that they are alive."""
BEAT_BYTES = 64
"""About what a heartbeat of one topic has."""
_GROUPS = 100
_TTL_S = 600
# Until the last bytes of what is measured are out.
_REST_S = 0.5


def tokens(key: SigningKey, topics: Iterable[str]) -> list[str]:
    """Sync tokens, one for each client: each for one of the topics."""
    now = int(time.time())
    claims = SyncTokenClaims(
        iss=ISSUER,
        sub=USER,
        aud=KHALA_AUDIENCE,
        iat=now,
        nbf=now,
        exp=now + _TTL_S,
        org_id=new_id("org"),
        scopes=["runs.read"],
        surface="cli",
        claims_version=SYNC_CLAIMS_VERSION,
    )
    made = []
    for topic in topics:
        claims.jti, claims.session_id, claims.topics[:] = new_id("tok"), new_id("ses"), [topic]
        made.append(sign_token(claims, key))
    return made


def verifier(key: SigningKey) -> SyncTokenVerifier:
    """The verifier, made as in the gateway."""
    clock = SystemClock()
    tokens = TokenVerifier(StaticKeys([key.public_key]), clock, max_remembered=0)
    return SyncTokenVerifier(tokens, clock, steady_wall_ms(clock))


async def until(reached: Callable[[], bool]) -> None:
    """Wait until `reached` is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not reached():
            await asyncio.sleep(0.005)


def says(key: SigningKey, topics: Sequence[str], after_seq: int | None = None) -> list[bytes]:
    """What clients say once their handshake is done, each with a token of its own: Hello, and a subscription to one of
    the topics. They begin behind `after_seq`, or at the start of what is kept."""
    cursor = None if after_seq is None else Cursor(EPOCH, after_seq)
    return [
        client_message(frames.Hello(token, "dev_1", "bench/1")) + client_message(frames.Subscribe(((topic, cursor),)))
        for token, topic in zip(tokens(key, topics), topics, strict=True)
    ]


class _Spent:
    """The resources that this process uses from now on."""

    def __init__(self) -> None:
        self._cpu_s, self._at, self._bytes = time.process_time(), time.perf_counter(), _resident_bytes()

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU time."""
        return time.process_time() - self._cpu_s

    @property
    def wall_s(self) -> float:
        """Seconds of wall-clock time."""
        return time.perf_counter() - self._at

    @property
    def kept_bytes(self) -> int:
        """Growth in memory, without garbage that waits for collection; the collection's own time is not counted."""
        cpu_s, at = time.process_time(), time.perf_counter()
        gc.collect()
        self._cpu_s += time.process_time() - cpu_s
        self._at += time.perf_counter() - at
        return _resident_bytes() - self._bytes


def _resident_bytes(pid: int | None = None) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _a_client(subject: str, setting: str, count: int, spent: _Spent, note: str = "") -> Figures:
    words = f"{spent.cpu_s / count * 1e3:.2f} ms of CPU a client, all in {spent.wall_s:.2f} s"
    return Figures(subject, setting, count, spent.cpu_s, note=f"{words}{note and '; '}{note}")


@asynccontextmanager
async def _warm_gateway(key: SigningKey) -> AsyncIterator[WebSocketServer]:
    """A gateway that has some clients already: what it needs once, for its first clients, is not counted."""
    async with gateway(verifier(key)) as (_, server, _):
        target = subscribed() + FIRST_CLIENTS
        async with many_clients(server.port, FIRST, says(key, [TOPIC] * FIRST_CLIENTS)) as clients:
            await clients.come()
            await until(lambda: subscribed() == target)
            yield server


async def connect(count: int) -> list[Figures]:
    """Measure clients that connect. All follow the same topic."""
    key = generate_key()
    said = says(key, [TOPIC] * count)
    async with _warm_gateway(key) as server:
        target = subscribed() + count
        async with many_clients(server.port, FIRST, said) as clients:
            spent = _Spent()
            await clients.come()
            await until(lambda: subscribed() == target)
            note = f"{spent.kept_bytes / count / 1024:.1f} KiB of memory a client"
            return [_a_client("khala_gateway", "connect and subscribe", count, spent, note)]


async def idle(count: int, idle_s: float) -> list[Figures]:
    """Measure clients that only listen."""
    key = generate_key()
    async with _warm_gateway(key) as server:
        target = subscribed() + count
        async with many_clients(server.port, FIRST, says(key, [TOPIC] * count)) as clients:
            await clients.come()
            await until(lambda: subscribed() == target)
            return [await _idle("idle", count, idle_s)]


async def pinging(count: int, idle_s: float) -> list[Figures]:
    """Measure clients that are idle and show that they are alive."""
    key = generate_key()
    async with _warm_gateway(key) as server:
        target = subscribed() + count
        said, ping = says(key, [TOPIC] * count), client_message(frames.Ping(1))
        async with many_clients(server.port, FIRST, said, ping=ping, ping_every_s=PING_EVERY_S) as clients:
            await clients.come()
            await until(lambda: subscribed() == target)
            return [await _idle("idle, with pings", count, idle_s)]


async def _idle(setting: str, count: int, idle_s: float) -> Figures:
    idle = _Spent()
    await asyncio.sleep(idle_s)
    return Figures("khala_gateway", setting, count, idle.cpu_s, note=f"{idle.cpu_s / idle_s * 100:.2f} % of a core")


async def apart(count: int) -> list[Figures]:
    """Measure clients that each follow a topic of their own."""
    key = generate_key()
    topics = [run_events(new_id("run")) for _ in range(count)]
    said = says(key, topics)
    async with _warm_gateway(key) as server:
        target = subscribed() + count
        async with many_clients(server.port, FIRST, said) as clients:
            spent = _Spent()
            await clients.come()
            await until(lambda: subscribed() == target)
            note = f"{spent.kept_bytes / count / 1024:.1f} KiB of memory a client"
            return [_a_client("khala_gateway", "connect and subscribe, a topic each", count, spent, note)]


async def storm(count: int, missed: int) -> list[Figures]:
    """Measure clients that all reconnect at once."""
    key = generate_key()
    said = says(key, [TOPIC] * count, after_seq=0)
    history = [event_frame(TOPIC, seq, bytes(PAYLOAD_BYTES)) for seq in range(1, missed + 1)]
    async with gateway(verifier(key), history) as (_, server, source):
        target = delivered() + count * missed
        async with many_clients(server.port, FIRST, said) as clients:
            spent = _Spent()
            await clients.come()
            await until(lambda: delivered() >= target)
            note = f"{spent.cpu_s:.2f} s of CPU, the topic was read {source.reads} times"
            return [_a_client("khala_gateway", f"storm, {missed} missed each", count, spent, note)]


async def centrifuge(count: int, storming: int, missed: int) -> list[Figures]:
    """Measure the peer in Go; no rows where it can't be compiled."""
    with tempfile.TemporaryDirectory() as directory:
        program = await asyncio.to_thread(go_program, CENTRIFUGE, Path(directory))
        if program is None:
            print("Centrifuge is left out: it needs Go, and Go's module proxy", file=sys.stderr)
            return []
        return [
            await _of_centrifuge(program, "connect and subscribe", count, 0),
            await _of_centrifuge(program, f"storm, {missed} missed each", storming, missed),
        ]


async def _of_centrifuge(program: Path, setting: str, count: int, missed: int) -> Figures:
    async with server_process(0, str(program)) as server:
        port, pid = map(int, (await line_of(server)).split())
        subscribe: dict[str, Any] = {"channel": "t0"}
        if missed:
            epoch = await line_of(server, f"keep {missed} {PAYLOAD_BYTES}")
            subscribe |= {"recoverable": True, "recover": True, "epoch": epoch, "offset": 0}
        commands = ({"id": 1, "connect": {}}, {"id": 2, "subscribe": subscribe})
        said = masked(0x81, "\n".join(map(json.dumps, commands)).encode())
        first = PLAIN_UPGRADE % b"/connection/websocket"
        async with many_clients(port, first, [said] * count, expected_bytes=missed * PAYLOAD_BYTES or 1) as clients:
            before_s, before_bytes, at = cpu_s_of(pid), _resident_bytes(pid), time.perf_counter()
            await clients.come()
            await clients.all_served()
            wall_s = time.perf_counter() - at
            await asyncio.sleep(_REST_S)
            cpu_s, kept = cpu_s_of(pid) - before_s, _resident_bytes(pid) - before_bytes
    note = f"{cpu_s / count * 1e3:.2f} ms of CPU a client, all in {wall_s:.2f} s; {cpu_s:.2f} s of CPU"
    note += f"; {kept / count / 1024:.1f} KiB of memory a client"
    return Figures("Centrifuge", setting, count, cpu_s, note=note)


async def handshakes(count: int) -> list[Figures]:
    """Measure the peer's connections."""
    open_now: set[_Handshake] = set()
    server = await asyncio.get_running_loop().create_server(lambda: _Handshake(open_now), "127.0.0.1", 0, backlog=4096)
    async with server, many_clients(server.sockets[0].getsockname()[1], FIRST, [ANYTHING] * count) as clients:
        spent = _Spent()
        await clients.come()
        await until(lambda: len(open_now) == count)
        note = f"{spent.kept_bytes / count / 1024:.1f} KiB of memory a client"
        return [_a_client("websockets", "handshake alone", count, spent, note)]


async def bare_sends(count: int, idle_s: float) -> list[Figures]:
    """Measure the floor of a heartbeat: a `send()` of as many bytes to each connection, spread as heartbeats are."""
    open_now: set[_Handshake] = set()
    server = await asyncio.get_running_loop().create_server(lambda: _Handshake(open_now), "127.0.0.1", 0, backlog=4096)
    async with server, many_clients(server.sockets[0].getsockname()[1], FIRST, [ANYTHING] * count) as clients:
        await clients.come()
        await until(lambda: len(open_now) == count)
        sockets, beat = [one.socket for one in open_now], bytes(BEAT_BYTES)
        together = max(1, count // _GROUPS)
        spent = _Spent()
        for first in range(0, count, together):
            for one in sockets[first : first + together]:
                one.send(beat)
            await asyncio.sleep(idle_s / _GROUPS)
        note = f"{spent.cpu_s / idle_s * 100:.2f} % of a core"
        return [Figures("bare send()", "to each idle client", count, spent.cpu_s, note=note)]


class _Handshake(asyncio.Protocol):
    """Answers an upgrade, and discards all further input."""

    def __init__(self, open_now: set[_Handshake]) -> None:
        self._open_now = open_now
        logger = logging.getLogger("benchmarks.handshake")
        self._ws = ServerProtocol(subprotocols=[Subprotocol(Form.PROTO.value)], logger=logger)
        self._tcp: asyncio.Transport
        self.socket: socket.socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast("asyncio.Transport", transport)
        # A duplicate: the event loop's own can't be used while it watches it.
        self.socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))

    def data_received(self, data: bytes) -> None:
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if isinstance(event, Request):
                self._ws.send_response(self._ws.accept(event))
                self._open_now.add(self)
        for answer in self._ws.data_to_send():
            self._tcp.write(answer)


def signatures(count: int) -> Figures:
    """Measure the floor of a signature check."""
    key = generate_key()
    text, public_key = bytes(600), key.public_key.public_bytes_raw()
    signed = key.private_key.sign(text) + text
    spent = _Spent()
    for _ in range(count):
        crypto_sign_open(signed, public_key)
    return _a_client("bare Ed25519", "check a signature", count, spent)


async def measured(count: int, storming: int, missed: int, idling: int, idle_s: float = IDLE_S) -> list[Figures]:
    """Every row."""
    return [
        signatures(count),
        *await _alone(handshakes, count),
        *await centrifuge(count, storming, missed),
        *await _alone(connect, count),
        *await _alone(apart, count),
        *await _alone(storm, storming, missed),
        *await _alone(bare_sends, idling, idle_s),
        *await _alone(idle, idling, idle_s),
        *await _alone(pinging, count, idle_s),
    ]


Part = Callable[..., Coroutine[Any, Any, list[Figures]]]


async def _alone(part: Part, *arguments: float) -> list[Figures]:
    """Measure in a process of its own: the memory that clients of an earlier part have left would be used again, and
    not be counted."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return await asyncio.get_running_loop().run_in_executor(process, _run, part, *arguments)


def _run(part: Part, *arguments: float) -> list[Figures]:
    allow_sockets(int(arguments[0]) + FIRST_CLIENTS)
    with on_core(0), Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        # Logging and garbage collection as in the service: both are part of the cost of a client.
        configure_logging(load(LogSettings, {}), "khala_gateway", nowhere)
        calm_garbage_collection()
        return uvloop.run(part(*arguments))


# ------------------------------------------------------------------------------------------------- command line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU time of letting a client in, and of a storm.")
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--storm", type=int, default=3_000, help="clients that come back at once")
    parser.add_argument("--missed", type=int, default=300, help="events that each of them missed")
    parser.add_argument("--idle", type=int, default=5_000, help="clients that only listen")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Entry point of `python -m benchmarks.khala_connect`."""
    arguments = _arguments()
    rows = asyncio.run(measured(arguments.clients, arguments.storm, arguments.missed, arguments.idle))
    report("Letting clients in: clients a second of the gateway's CPU", rows, arguments.json)


if __name__ == "__main__":
    main()
