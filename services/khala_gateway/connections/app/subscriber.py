"""One topic of one connection, between its feed, its session and its delivery."""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from oa_base.refusal import Refusal
from oa_khala.cursors import STALE_REASONS
from oa_khala.frames import Cursor, TopicState
from oa_khala.server.commands import Command, Subscription
from oa_khala.server.subscriptions import Subscriptions
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.ports import Transport
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.feeds.domain import Encoding
from services.khala_gateway.sources.app.ports import state_said

Run = Callable[[list[Command]], None]


class Waits(Enum):
    """States of a topic's delivery: what it waits for."""

    NOTHING = "nothing"  # everything has been delivered, or delivery may not begin yet
    TURN = "turn"
    HISTORY = "history"


# Compared for each frame and subscriber: looking up a member of an enum takes several times as long.
_NOTHING = Waits.NOTHING


class Deliverer(Protocol):
    """Delivers to the connection."""

    def serve(self, subscriber: "TopicSubscriber") -> None:
        """Serve `subscriber`, which waits for nothing and may have something to deliver."""
        ...

    def mark(self, subscriber: "TopicSubscriber") -> None:
        """Give `subscriber` a turn, because it may have something to deliver."""
        ...


class TopicSubscriber:
    """Implements `Subscriber`: tells the session what the feed and the source say about a subscription."""

    __slots__ = (
        "_deliverer",
        "_run",
        "_subscriptions",
        "_transport",
        "attempt",
        "feed",
        "registered_at",
        "subscription",
        "waits",
    )

    def __init__(
        self,
        subscription: Subscription,
        subscriptions: Subscriptions,
        deliverer: Deliverer,
        transport: Transport,
        run: Run,
        registered_at: int,
    ) -> None:
        """`run` carries out the session's commands; `registered_at` is a tick of the `ReplayReader`."""
        self.subscription = subscription
        self.registered_at = registered_at
        self.feed: TopicFeed | None = None
        self.waits = Waits.NOTHING
        # How many times in a row history was not available.
        self.attempt = 0
        self._subscriptions = subscriptions
        self._deliverer = deliverer
        self._transport = transport
        self._run = run

    @property
    def encoding(self) -> Encoding:
        """The encoding of its connection's messages."""
        return self._transport.encoding

    @property
    def write(self) -> Callable[[bytes], None]:
        """Writes complete messages to the connection's socket."""
        return self._transport.write

    def blocked(self) -> None:
        """Note that the socket accepts no data at present."""
        if self.feed is not None:
            self.feed.part(self)

    def ready(self, feed: TopicFeed) -> None:
        """Note that the feed stands. No await follows until SUBSCRIBED, so its head is the one that is served."""
        self.feed = feed
        owners = feed.owner_user_id, feed.owner_org_id
        self._run(self._subscriptions.ready(self.subscription, feed.state, *owners))

    def moved(self) -> None:
        """Note that the feed has more."""
        subscription = self.subscription
        if subscription.next_seq and subscription.live and self.waits is _NOTHING:
            self._deliverer.serve(self)

    def ring(self, now_ms: int) -> None:
        """Try again, because history was not available before."""
        self.waits = _NOTHING
        if self.subscription.live:
            self._deliverer.mark(self)

    def stale(self, reason: str, state: TopicState) -> None:
        """Tell the session that the current delivery can't continue."""
        self._run(self._subscriptions.stale(self.subscription, reason, state))

    def refused(self, refusal: Refusal) -> None:
        """Tell the session that the topic is not available."""
        self._run(self._subscriptions.refused(self.subscription, refusal))

    async def confirm(self, cursor: Cursor, dependencies: Dependencies) -> None:
        """Ask the source about a cursor, and tell the session where the feed stands then."""
        refusal: Refusal | None = None
        topic = self.subscription.topic
        try:
            await dependencies.confirmations.confirm(topic, cursor, self.feed.owner if self.feed else "")
        except Refusal as error:
            refusal = error
        if not self.subscription.live or self.feed is None or not self.feed.stands:
            return  # the code that ended it has already told the client
        state = self.feed.state
        if refusal is None:
            self._run(self._subscriptions.cursor_confirmed(self.subscription, state))
            return
        chain = bytes.fromhex(refusal.metadata.get("chain", ""))
        if refusal.reason in STALE_REASONS and not chain and cursor.applied_seq <= state.head:
            dependencies.hub.outdated(topic)  # its numbers agree with the feed, but not with the source
        said = state_said(refusal, state)
        self._run(self._subscriptions.cursor_refused(self.subscription, refusal, said, chain))

    async def read_snapshot(self, dependencies: Dependencies) -> None:
        """Read the topic's state, and tell the session where the feed stands then."""
        topic = self.subscription.topic
        if self.feed is None:
            return
        feed, in_parts = self.feed, self.subscription.takes_snapshots
        try:
            found = await dependencies.snapshots.read(topic, feed.state, in_parts, feed.owner)
        except Refusal as refusal:
            self.refused(refusal)
            return
        if not self.subscription.live or not self.feed.stands:
            return  # the code that ended it has already told the client
        state = self.feed.state
        if found.epoch != state.epoch:
            dependencies.hub.outdated(topic)
            self.refused(Refusal("unavailable", "the topic has got another lineage; subscribe again"))
            return
        # Before the feed is told, so that whatever follows from that is delivered after the snapshot.
        self._run(self._subscriptions.snapshot(self.subscription, state, found.seq, found.payload, found.chain))
        dependencies.hub.learned(topic, TopicState(found.epoch, state.floor, found.seq))
