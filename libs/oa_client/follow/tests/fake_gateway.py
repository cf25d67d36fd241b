"""A Khala gateway for tests, on a real WebSocket: one topic, and faults on request."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import websockets
from websockets.asyncio.server import ServerConnection, serve

from oa_base.refusal import Refusal
from oa_client.core.models import SyncGrant
from oa_khala import frames, wire
from oa_khala.cursors import Stale, plan_subscription
from oa_khala.frames import Cursor, Form, Plan

EPOCH = "epoch-1"
_REPLAY_BUDGET = 1_000_000


@dataclass
class Topic:
    """What a topic holds; event `n` is `events[n - 1]`."""

    events: list[bytes]
    epoch: str = EPOCH
    floor: int = 0
    snapshots: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    """Head -> the payload of the snapshot there, and the chain value."""


@dataclass
class Fault:
    """What goes wrong with one connection. Seqs count in what is sent on it."""

    cut_after: int | None = None
    """The TCP connection is cut after this seq was sent."""
    repeat: bool = False
    """Every event is sent twice."""
    lose: int | None = None
    """This seq is left out."""
    close_with: frames.ErrorFrame | None = None
    """The answer to Hello, and a close."""
    stays: bool = False
    """There is no close then."""


@dataclass
class FakeGateway:
    """Serves `topics`; the n-th connection has the n-th fault."""

    topics: dict[str, Topic]
    faults: deque[Fault] = field(default_factory=deque)
    subscribed_from: list[Cursor | None] = field(default_factory=list)
    hellos: list[frames.Hello] = field(default_factory=list)
    received: list[frames.ClientFrame] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A connection has."""
    url: str = ""

    def append(self, topic: str, events: Sequence[bytes]) -> None:
        """More events; subscribers get them."""
        self.topics[topic].events.extend(events)
        self.changed.set()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeGateway]:
        """On loopback, with TLS if there is a context for it."""
        async with serve(
            self._serve, "127.0.0.1", 0, subprotocols=[websockets.Subprotocol(Form.PROTO.value)], ssl=tls
        ) as server:
            self.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/khala/v1/ws"
            yield self

    async def _serve(self, connection: ServerConnection) -> None:
        fault = self.faults.popleft() if self.faults else Fault()
        deliveries: dict[str, asyncio.Task[None]] = {}
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in connection:
                assert isinstance(message, bytes)
                frame = wire.decode_client_frame(message, Form.PROTO)
                self.received.append(frame)
                await self._answer(connection, frame, fault, deliveries)
        self.ended.set()
        for delivery in deliveries.values():
            delivery.cancel()

    async def _answer(
        self,
        connection: ServerConnection,
        frame: frames.ClientFrame,
        fault: Fault,
        deliveries: dict[str, asyncio.Task[None]],
    ) -> None:
        match frame:
            case frames.Hello():
                self.hellos.append(frame)
                if fault.close_with:
                    await self._send(connection, fault.close_with)
                    if not fault.stays:
                        await connection.close(4401)
                    return
                await self._send(connection, frames.Welcome("c1", 15_000, 60_000, 128, 65536, 0, 300_000))
            case frames.Subscribe():
                for name, cursor in frame.topics:
                    if old := deliveries.pop(name, None):
                        old.cancel()
                    takes = name in frame.takes_snapshots
                    deliveries[name] = asyncio.create_task(self._deliver(connection, name, cursor, takes, fault))
            case _:
                pass

    async def _deliver(
        self, connection: ServerConnection, name: str, cursor: Cursor | None, takes: bool, fault: Fault
    ) -> None:
        topic = self.topics[name]
        head = len(topic.events)
        self.subscribed_from.append(cursor)  # after the look at the topic: a test appends when it sees this
        state = frames.TopicState(topic.epoch, topic.floor, head, takes and head in topic.snapshots)
        start = plan_subscription(cursor, state, _REPLAY_BUDGET)
        if isinstance(start, Stale):
            await self._send(connection, frames.ErrorFrame(name, start.reason, "stale", stale=state))
            return
        at = start.from_seq
        payload, chain = topic.snapshots[head] if start.plan is Plan.SNAPSHOT else (b"", b"")
        await self._send(connection, frames.Subscribed(name, topic.epoch, topic.floor, head, start.plan, at, chain))
        for part in (1, 2) if payload else ():
            half = payload[: len(payload) // 2] if part == 1 else payload[len(payload) // 2 :]
            await self._send(connection, frames.Snapshot(name, at, half, part=part, parts=2))
        caught_up = False
        while True:
            for seq in range(at + 1, len(topic.events) + 1):
                await self._event(connection, name, seq, topic.events[seq - 1], fault)
            at = len(topic.events)
            if not caught_up and at >= head:
                caught_up = True
                await self._send(connection, frames.CaughtUp(name, head))
            await self.changed.wait()
            self.changed.clear()

    async def _event(self, connection: ServerConnection, name: str, seq: int, payload: bytes, fault: Fault) -> None:
        if seq == fault.lose:
            fault.lose = None
            return
        for _ in range(2 if fault.repeat else 1):
            await connection.send(wire.event_frame(name, seq, payload))
        if seq == fault.cut_after:
            await asyncio.sleep(0.02)  # let the bytes leave: an abort throws away what is buffered
            connection.transport.abort()
            await asyncio.sleep(3600)

    @staticmethod
    async def _send(connection: ServerConnection, frame: frames.ServerFrame) -> None:
        await connection.send(wire.encode_server_frame(frame, Form.PROTO))


@dataclass
class FakeTokens:
    """A mint that grants everything but `refused`; `failures` are raised first, one per call. Like control's, it has no
    token without a topic."""

    url: str
    failures: deque[Exception] = field(default_factory=deque)
    refused: tuple[tuple[str, str], ...] = ()
    expires_in_ms: int = 300_000
    minted: int = 0

    async def sync_token(self, topics: Sequence[str], *, surface: str, ttl_seconds: int = 0) -> SyncGrant:
        if self.failures:
            raise self.failures.popleft()
        self.minted += 1
        granted = frozenset(topics) - {topic for topic, _ in self.refused}
        if not granted:
            raise Refusal(dict(self.refused)[min(topics)], "no topic was granted", field="topics")
        return SyncGrant(f"token-{self.minted}", granted, self.expires_in_ms, self.refused, self.url)
