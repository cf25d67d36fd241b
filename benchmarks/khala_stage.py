"""A gateway in the measuring process: the real hub, connections and sockets, and a source that costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable, Sequence

from oa_khala.frames import TopicState
from oa_khala.server.admission import Grant
from oa_khala.server.limits import SessionLimits
from oa_platform.auth.revocations import Revocations
from oa_platform.config.parsers import Address
from oa_platform.system.clock import SystemClock
from oa_testing.metrics import value_of
from services.khala_gateway.admission.app import Admission, LiveTokens, SyncTokens
from services.khala_gateway.admission.domain import OriginPolicy
from services.khala_gateway.admission.limits import AdmissionLimits
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.heartbeats import Heartbeats
from services.khala_gateway.connections.app.subscriber import TopicSubscriber
from services.khala_gateway.connections.app.timer import Alarms
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.feeds.metrics import DELIVERED, SUBSCRIPTIONS
from services.khala_gateway.sockets.limits import PortLimits, SocketLimits
from services.khala_gateway.sockets.ws_door.server import WebSocketServer
from services.khala_gateway.sources.app.ports import HistoryPage, TopicSnapshot, WatchedTopic
from services.khala_gateway.wiring import steady_wall_ms

TOPIC = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
USER = "usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X"
EPOCH = "e1"
_MANY = 1 << 20
OPEN_DOOR = AdmissionLimits(
    handshake_burst=_MANY,
    handshake_burst_per_address=_MANY,
    waiting_per_address=_MANY,
    connections_per_address=_MANY,
    connections_per_session=_MANY,
    connections_per_principal=_MANY,
)
"""Limits that let all clients in: they all come from one address, and many belong to one person."""


class OpenTokens:
    """Accepts any token for `topics`, for benchmarks that don't measure the cost of verifying one."""

    def __init__(self, topics: Iterable[str] = (TOPIC,)) -> None:
        self._count = 0
        self._topics = frozenset(topics)

    async def verify(self, token: str) -> Grant:
        """A separate grant for each caller."""
        self._count += 1
        scopes = frozenset({"runs.read"})
        return Grant(USER, "", scopes, self._topics, "ses_1", "", f"jti_{self._count}", 1 << 45)


class LocalSource:
    """A source in this process, because the cost of an upstream is not measured. Every topic holds `history`."""

    def __init__(self, history: Sequence[bytes]) -> None:
        self._history = history
        self.hub: FeedHub
        self.reads = 0
        self.away = False

    def add(self, topics: Iterable[str]) -> None:
        """Report each topic as being at the end of the history."""
        for topic in topics:
            watched = WatchedTopic(topic, TopicState(EPOCH, 0, len(self._history)), USER, "")
            asyncio.get_running_loop().call_soon(self.hub.watched, watched)

    def remove(self, topics: Iterable[str]) -> None:
        """Nothing to do."""

    async def snapshot(self, topic: str, max_bytes: int) -> TopicSnapshot:
        """Never called: no topic here has a snapshot."""
        raise NotImplementedError

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        """A page of the history, after the time that a page takes from another process."""
        self.reads += 1
        await asyncio.sleep(0.002)
        frames = self._history[after_seq : after_seq + max_frames]
        return HistoryPage(EPOCH, after_seq + 1, frames, 0, len(self._history))


@contextlib.asynccontextmanager
async def gateway(
    tokens: SyncTokens | None = None,
    history: Sequence[bytes] = (),
    socket: SocketLimits | None = None,
    session: SessionLimits | None = None,
) -> AsyncIterator[tuple[FeedHub, WebSocketServer, LocalSource]]:
    """A running gateway, for a block."""
    source, limits, session = LocalSource(history), HubLimits(), session or SessionLimits()
    sources = {"runtime": source, "projector": source}
    flusher = Flusher(asyncio.get_running_loop(), 0.0)
    hub = source.hub = FeedHub(limits, sources, random.random, flusher)
    now_ms = steady_wall_ms(SystemClock())
    dependencies = Dependencies(
        hub=hub,
        replays=ReplayReader(sources, limits),
        confirmations=Confirmations(sources, limits.concurrent_confirmations),
        snapshots=Snapshots(sources, limits),
        tokens=tokens or OpenTokens(),
        live_tokens=LiveTokens(OPEN_DOOR),
        revocations=Revocations(SystemClock()),
        flusher=flusher,
        alarms=Alarms(now_ms),
        heartbeats=Heartbeats(hub.standing, session.heartbeat_interval_ms, now_ms),
        limits=session,
        now_ms=now_ms,
        jitter=random.random,
    )
    admission = Admission(OriginPolicy(()), OPEN_DOOR, now_ms)
    port = PortLimits(socket=socket or SocketLimits(), drain_window_ms=0)
    async with WebSocketServer(Address("127.0.0.1", 0), dependencies, admission, port) as server, hub:
        yield hub, server, source


async def at_the_head(hub: FeedHub, count: int) -> None:
    """Wait until exactly `count` subscribers of the topic have been given everything that it holds, and the metrics
    say so."""
    async with asyncio.timeout(60):
        while not _is_given(hub.feeds.get(TOPIC), count):
            await asyncio.sleep(0.01)
    # The flusher counts what a replay has handed over in the next pass of the loop.
    await asyncio.sleep(0)


def _is_given(feed: TopicFeed | None, count: int) -> bool:
    if feed is None or not feed.stands:
        return False
    subscribers = [one for one in feed.subscribers if isinstance(one, TopicSubscriber)]
    given = (one.subscription.live and one.subscription.next_seq > feed.head for one in subscribers)
    return len(subscribers) == count and all(given)


def delivered() -> float:
    """Number of frames that all gateways of this process have handed to sockets."""
    return value_of(DELIVERED)


def subscribed() -> float:
    """Number of subscriptions to runs that are being served."""
    return value_of(SUBSCRIPTIONS.labels("run_events"))
