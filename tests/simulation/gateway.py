"""The real gateway without sockets and gRPC: sources, feeds, connections, between simulated ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
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
from services.khala_gateway.connections.app.heartbeats import Heartbeats
from services.khala_gateway.connections.app.timer import Alarms
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.published import PublishedFrames
from services.khala_gateway.sources.door import GrpcTopicSource
from services.khala_gateway.sources.limits import SourceLimits
from tests.simulation.link import Link
from tests.simulation.source import SimReplica
from tests.simulation.subjects import SILENT_AFTER_MS, SimLink, SimSubjects
from tests.simulation.world import USER, Broken, World

SESSION_LIMITS = SessionLimits(
    hello_deadline_ms=2_000,
    heartbeat_interval_ms=3_333,
    idle_timeout_ms=8_000,
    slow_consumer_ms=4_000,
    snapshot_part_bytes=100,
)
SOURCES: tuple[Source, ...] = ("runtime", "projector")
SCOPES = frozenset({"runs.read"})
# Reasons that mean that one of us did something wrong.
_DEFECTS = frozenset({"internal", "protocol_violation", "malformed_message", "missing_payload", "invalid_value"})


def token_text(jti: str, session_id: str, issued_at_ms: int, expires_at_ms: int, topics: frozenset[str]) -> str:
    """A token of the simulation, as control would mint it."""
    return "|".join([jti, session_id, str(issued_at_ms), str(expires_at_ms), *sorted(topics)])


class SimTokens:
    """Verifies them, after a while."""

    def __init__(self, world: World, revocations: Revocations) -> None:
        self._world = world
        self._revocations = revocations

    async def verify(self, token: str) -> Grant:
        """Raises Refusal `token_expired`, `token_revoked`. What is revoked after that, the connection has to see."""
        await asyncio.sleep(self._world.delay_s())
        jti, session_id, issued_at, expires_at, *topics = token.split("|")
        if int(expires_at) <= self._world.now_ms():
            raise Refusal("token_expired", "old")
        issued_s = int(issued_at) / 1000
        grant = Grant(USER, "", SCOPES, frozenset(topics), session_id, "", jti, int(expires_at), issued_s)
        self._revocations.check(grant.holder)
        await asyncio.sleep(self._world.delay_s())
        return grant


class SimGateway:
    """One gateway, that can crash, drain and come back with an empty memory."""

    def __init__(
        self,
        name: str,
        world: World,
        hub_limits: HubLimits,
        topic_limits: TopicLimits,
        high_bytes: int,
        subjects: SimSubjects | None = None,
    ) -> None:
        """With `subjects`, sources publish frames there, and this takes them there."""
        self.name = name
        self._world = world
        self._limits = hub_limits
        self._topic_limits = topic_limits
        self._high_bytes = high_bytes
        self._subjects = subjects
        self._subscriptions: SimLink | None = None
        self.links: list[Link] = []
        self.up = False
        self._accepted = 0
        self.replicas: list[SimReplica] = []
        self.hub: FeedHub
        self._revocations: Revocations
        self._dependencies: Dependencies
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Come up with an empty memory."""
        world, rng = self._world, self._world.rng
        world.trace.note(self.name, "comes up")
        sources: dict[str, GrpcTopicSource] = {}
        published = self._published()
        for name in SOURCES:
            replica = SimReplica(world, name, self._topic_limits, self._subjects)
            self.replicas.append(replica)
            channel = cast("Channel", replica.channel)
            sources[name] = GrpcTopicSource(name, channel, lambda: self.hub, rng.random, published=published.get(name))
        flusher = Flusher(asyncio.get_running_loop(), 1.0)
        self.hub = FeedHub(self._limits, sources, rng.random, flusher)
        self._revocations = Revocations(SystemClock())
        self._dependencies = Dependencies(
            hub=self.hub,
            replays=ReplayReader(sources, self._limits),
            confirmations=Confirmations(sources, self._limits.concurrent_confirmations),
            snapshots=Snapshots(sources, self._limits),
            tokens=SimTokens(world, self._revocations),
            live_tokens=LiveTokens(),
            revocations=self._revocations,
            flusher=flusher,
            alarms=Alarms(world.now_ms),
            heartbeats=Heartbeats(self.hub.standing, SESSION_LIMITS.heartbeat_interval_ms, world.now_ms),
            limits=SESSION_LIMITS,
            now_ms=world.now_ms,
            jitter=rng.random,
        )
        self._tasks = [asyncio.create_task(source.run()) for source in sources.values()]
        self._tasks.append(asyncio.create_task(self.hub.run_audit()))
        self.up = True
        self.hear_of_revocations()

    def _published(self) -> Mapping[Source, PublishedFrames]:
        """What each source publishes, over a new connection to the server of subjects."""
        if self._subjects is None:
            return {}
        self._subscriptions = link = SimLink()
        self._subjects.links.append(link)
        published = {name: PublishedFrames(name, link, SourceLimits(check_ms=SILENT_AFTER_MS)) for name in SOURCES}

        def broken(why: str) -> None:
            for frames in published.values():
                frames.lost(why)

        link.broken = broken
        return published

    def hear_of_revocations(self) -> None:
        """Control's stream goes on behind what is known here, or begins; it comes when control is there."""
        if self.up and self._world.control_up:
            self._world.later(partial(self._hear, self._revocations))

    def _hear(self, revocations: Revocations) -> None:
        if not self.up or revocations is not self._revocations:
            return  # another life of this gateway
        known, all_of_them = revocations.position, self._world.revoked
        revocations.take(all_of_them[known:], len(all_of_them))
        for link in self.links:
            link.is_over = self._world.is_over(link.session_id, revocations.position)

    async def crash(self) -> None:
        """Be gone, with everything in memory."""
        self.up = False
        self._world.trace.note(self.name, "crashes")
        for replica in self.replicas:
            replica.close()
        self.replicas.clear()
        if self._subjects is not None and self._subscriptions is not None:
            self._subjects.links.remove(self._subscriptions)
        for link in self.links:
            # A host that is gone closes nothing: its clients have to find out.
            link.cut(tell_client=self._world.rng.random() < 0.8, tell_gateway=False)
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
        self._world.trace.note(self.name, "drains")
        for link in self.links:
            if link.connection is not None:
                link.connection.drain(self._world.rng.randint(0, window_ms))

    def accept(
        self, form: Form, session_id: str, to_client: Callable[[bytes], None], client_ended: Callable[[str], None]
    ) -> Link | None:
        """A new connection; None when nobody listens."""
        if not self.up:
            return None
        link = Link(self._world, form, session_id, to_client, client_ended, self._high_bytes)
        self._accepted += 1
        link.is_over = self._world.is_over(session_id, self._revocations.position)
        link.connection = Connection(f"{self.name}/con_{self._accepted}", link, self._dependencies, "")
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
            if link.peak_held_bytes > self._high_bytes + self._limits.page_bytes + 4_096:
                raise Broken(f"a connection held {link.peak_held_bytes} bytes")
