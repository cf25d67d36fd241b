"""The real gateway without sockets and gRPC: sources, feeds, connections, between simulated ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from grpc.aio import Channel

from oa_base.refusal import Refusal
from oa_khala.feed import FeedLimits
from oa_khala.frames import Form
from oa_khala.server.admission import Grant
from oa_khala.server.limits import SessionLimits
from oa_khala.topics import Source
from oa_platform.auth.revocations import Revocations
from oa_platform.system.clock import SystemClock
from oa_topics.store import TopicLimits
from services.khala_gateway.admission.app import LiveTokens
from services.khala_gateway.connections.app.connection import Connection
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.flusher import Flusher
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.door import GrpcTopicSource
from tests.simulation.link import Link
from tests.simulation.source import SimReplica
from tests.simulation.world import USER, Broken, World

SESSION_LIMITS = SessionLimits(
    hello_deadline_ms=2_000,
    heartbeat_interval_ms=2_000,
    idle_timeout_ms=8_000,
    slow_consumer_ms=4_000,
    snapshot_part_bytes=100,
)
SOURCES: tuple[Source, ...] = ("runtime", "projector")
SCOPES = frozenset({"runs.read"})
# Reasons that mean that one of us did something wrong.
_DEFECTS = frozenset({"internal", "protocol_violation", "malformed_message", "missing_payload", "invalid_value"})


def token_text(jti: str, expires_at_ms: int, topics: frozenset[str]) -> str:
    """A token of the simulation, as control would mint it."""
    return "|".join([jti, str(expires_at_ms), *sorted(topics)])


class SimTokens:
    """Verifies them, after a while."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def verify(self, token: str) -> Grant:
        """Raises Refusal `token_expired`."""
        await asyncio.sleep(self._world.delay_s())
        jti, expires_at, *topics = token.split("|")
        if int(expires_at) <= self._world.now_ms():
            raise Refusal("token_expired", "old")
        return Grant(USER, "", SCOPES, frozenset(topics), "ses_1", "", jti, int(expires_at))


class SimGateway:
    """One gateway, that can crash, drain and come back with an empty memory."""

    def __init__(self, world: World, hub_limits: HubLimits, topic_limits: TopicLimits, high_bytes: int) -> None:
        self._world = world
        self._limits = hub_limits
        self._topic_limits = topic_limits
        self._high_bytes = high_bytes
        self.links: list[Link] = []
        self.up = False
        self.replicas: list[SimReplica] = []
        self.hub: FeedHub
        self._dependencies: Dependencies
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Come up with an empty memory."""
        world, rng = self._world, self._world.rng
        sources: dict[str, GrpcTopicSource] = {}
        for name in SOURCES:
            replica = SimReplica(world, name, self._topic_limits)
            self.replicas.append(replica)
            sources[name] = GrpcTopicSource(name, cast("Channel", replica.channel), lambda: self.hub, rng.random)
        self.hub = FeedHub(self._limits, sources, rng.random)
        self._dependencies = Dependencies(
            hub=self.hub,
            replays=ReplayReader(sources, self._limits),
            confirmations=Confirmations(sources, self._limits.concurrent_confirmations),
            snapshots=Snapshots(sources, self._limits),
            tokens=SimTokens(world),
            live_tokens=LiveTokens(),
            revocations=Revocations(SystemClock()),
            flusher=Flusher(asyncio.get_running_loop(), 1.0),
            limits=SESSION_LIMITS,
            now_ms=world.now_ms,
            jitter=rng.random,
        )
        self._tasks = [asyncio.create_task(source.run()) for source in sources.values()]
        self._tasks.append(asyncio.create_task(self.hub.run_audit()))
        self.up = True

    async def crash(self) -> None:
        """Be gone, with everything in memory."""
        self.up = False
        for replica in self.replicas:
            replica.close()
        self.replicas.clear()
        for link in self.links:
            link.cut(tell_client=True, tell_gateway=False)
            connection, link.connection = link.connection, None
            if connection is not None:
                connection.closed()
        self.links.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hub.__aexit__(None, None, None)

    def drain(self, window_ms: int) -> None:
        """Tell everybody to come back, and close them over `window_ms`."""
        for link in self.links:
            if link.connection is not None:
                link.connection.drain(self._world.rng.randint(0, window_ms))

    def accept(
        self, form: Form, to_client: Callable[[bytes], None], client_ended: Callable[[str], None]
    ) -> Link | None:
        """A new connection; None when nobody listens."""
        if not self.up:
            return None
        link = Link(self._world, form, to_client, client_ended, self._high_bytes)
        link.connection = Connection(f"con_{len(self.links)}", link, self._dependencies, "")
        self.links = [one for one in self.links if one.connection is not None]
        self.links.append(link)
        return link

    def check(self, feed_limits: FeedLimits) -> None:
        """Bounds hold, and nothing was closed for a reason that nobody should ever give."""
        for held in self.hub.feeds.values():
            feed = held.feed
            in_ring = feed.head + 1 - feed.ring_start
            if len(feed.parked) > feed_limits.parked_events or in_ring > feed_limits.ring_events:
                raise Broken(f"{held.name} holds more than it may")
        for link in self.links:
            if link.closing_for in _DEFECTS:
                raise Broken(f"the gateway closed for {link.closing_for}")
            # One write beyond the mark, and the small frames that answer a client's own.
            if link.most_held_bytes > self._high_bytes + self._limits.page_bytes + 4_096:
                raise Broken(f"a connection held {link.most_held_bytes} bytes")
