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
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.sources.app.ports import state_said

Run = Callable[[list[Command]], None]


class Waits(Enum):
    """What the delivery of a topic waits for."""

    NOTHING = "nothing"  # everything has been delivered, or nothing may be yet
    TURN = "turn"
    HISTORY = "history"


# Looked at for each frame and subscriber: a member of an enum takes several times as long to find.
_NOTHING = Waits.NOTHING


class Deliverer(Protocol):
    """Delivers to the connection."""

    def serve(self, subscriber: "TopicSubscriber") -> None:
        """`subscriber`, which waits for nothing, may have something to deliver."""
        ...


class TopicSubscriber:
    """Implements `Subscriber`: what feed and source say of a subscription, the session is told."""

    __slots__ = ("_deliverer", "_run", "_subscriptions", "attempt", "feed", "registered_at", "subscription", "waits")

    def __init__(
        self,
        subscription: Subscription,
        subscriptions: Subscriptions,
        deliverer: Deliverer,
        run: Run,
        registered_at: int,
    ) -> None:
        """`run` carries out what the session answers; `registered_at` is a tick of the `ReplayReader`."""
        self.subscription = subscription
        self.registered_at = registered_at
        self.feed: TopicFeed | None = None
        self.waits = Waits.NOTHING
        # How often in a row history was not to be had.
        self.attempt = 0
        self._subscriptions = subscriptions
        self._deliverer = deliverer
        self._run = run

    def ready(self, feed: TopicFeed) -> None:
        """The feed stands: from here to SUBSCRIBED there is no await, so its head is the one that is served."""
        self.feed = feed
        owners = feed.owner_user_id, feed.owner_org_id
        self._run(self._subscriptions.ready(self.subscription, feed.state, *owners))

    def moved(self) -> None:
        """The feed has more."""
        subscription = self.subscription
        if subscription.next_seq and subscription.live and self.waits is _NOTHING:
            self._deliverer.serve(self)

    def stale(self, reason: str, state: TopicState) -> None:
        """What was being delivered can't go on."""
        self._run(self._subscriptions.stale(self.subscription, reason, state))

    def refused(self, refusal: Refusal) -> None:
        """The topic can't be had."""
        self._run(self._subscriptions.refused(self.subscription, refusal))

    async def confirm(self, cursor: Cursor, dependencies: Dependencies) -> None:
        """Ask the source about a cursor, and tell the session where the feed stands then."""
        refusal: Refusal | None = None
        topic = self.subscription.topic
        try:
            await dependencies.confirmations.confirm(topic, cursor)
        except Refusal as error:
            refusal = error
        if not self.subscription.live or self.feed is None or not self.feed.stands:
            return  # who ended it has said so
        state = self.feed.state
        if refusal is None:
            self._run(self._subscriptions.cursor_confirmed(self.subscription, state))
            return
        chain = bytes.fromhex(refusal.metadata.get("chain", ""))
        if refusal.reason in STALE_REASONS and not chain:
            dependencies.hub.outdated(topic)  # its numbers fit the feed, but not what the source has
        said = state_said(refusal) or state
        self._run(self._subscriptions.cursor_refused(self.subscription, refusal, said, chain))

    async def read_snapshot(self, dependencies: Dependencies) -> None:
        """Read the topic's state, and tell the session where the feed stands then."""
        topic = self.subscription.topic
        if self.feed is None:
            return
        try:
            found = await dependencies.snapshots.read(topic, self.feed.state, self.subscription.takes_snapshots)
        except Refusal as refusal:
            self.refused(refusal)
            return
        if not self.subscription.live or not self.feed.stands:
            return  # who ended it has said so
        state = self.feed.state
        if found.epoch != state.epoch:
            dependencies.hub.outdated(topic)
            self.refused(Refusal("unavailable", "the topic has got another lineage; subscribe again"))
            return
        # Before the feed is told: what that brings about is delivered once the snapshot has been.
        self._run(self._subscriptions.snapshot(self.subscription, state, found.seq, found.payload, found.chain))
        dependencies.hub.learned(topic, TopicState(found.epoch, state.floor, found.seq))
