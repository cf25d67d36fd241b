"""What a connection subscribes to: each topic from SUBSCRIBE through SUBSCRIBED to its end.

A subscription's `next_seq` is anchored at its cursor + 1 from the moment of SUBSCRIBED, and every delivery to the
client is asserted to start exactly there. A check that began with the first frame to arrive would miss a lost one.
"""

from collections.abc import Callable
from dataclasses import replace

from oa_base.clock import MS_NS
from oa_base.rate import Rate, TokenBucket
from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.cursors import AHEAD, STALE_REASONS, Stale, Start, as_asked, plan_subscription
from oa_khala.frames import Cursor, Plan, TopicState
from oa_khala.server.admission import GRANTS_NOTHING, Grant, admit, check_owner, concealed
from oa_khala.server.commands import (
    Command,
    ConfirmCursor,
    DeliveryBroken,
    JoinFeed,
    LeaveFeed,
    ReadSnapshot,
    SendFrame,
    Serve,
    Subscription,
)
from oa_khala.server.limits import SessionLimits
from oa_khala.server.parts import UnsentSnapshot
from oa_khala.topics import MAX_TOPIC_LENGTH, Topic

Standing = Callable[[str], tuple[int, bool]]
"""Returns the newest deliverable seq of a topic that is being served, and whether its source does not answer at
present."""
Served = tuple[tuple[str, str], ...]
"""The topics that are being served, each with its epoch."""


class Subscriptions:
    """See the module. Answers about a subscription that has ended in the meantime are ignored."""

    __slots__ = ("_grant", "_max_topics", "_part_bytes", "_rate", "by_topic")

    def __init__(self, limits: SessionLimits, now_ms: int) -> None:
        self.by_topic: dict[str, Subscription] = {}
        self._max_topics = limits.max_topics
        self._part_bytes = limits.snapshot_part_bytes
        self._grant = GRANTS_NOTHING
        rate = Rate.per_second(limits.subscribe_per_s, limits.subscribe_burst)
        self._rate = TokenBucket(rate, now_ms * MS_NS)

    # --------------------------------------------------------------------------------------------- the session

    def granted(self, grant: Grant) -> list[Command]:
        """Make `grant` the one in force, and refuse topics that it lacks."""
        self._grant = grant
        out: list[Command] = []
        for subscription in list(self.by_topic.values()):
            try:
                admit(grant, subscription.name, field="")
                if subscription.owners is not None:
                    check_owner(grant, subscription.topic, *subscription.owners)
            except Refusal as refusal:
                out += self.refused(subscription, refusal)
        return out

    def subscribe(self, frame: frames.Subscribe, now_ms: int) -> list[Command]:
        """Start each topic afresh at its cursor, or refuse it alone; a refused topic's earlier subscription stands."""
        out: list[Command] = []
        named: set[str] = set()
        for index, (name, cursor) in enumerate(frame.topics):
            try:
                _check_once(name, named, field=f"subscribe.topics[{index}].topic")
                topic = admit(self._grant, name, field=f"subscribe.topics[{index}].topic")
                _check_chain(topic, cursor, field=f"subscribe.topics[{index}].cursor.chain")
                self._check_room(name, now_ms)
            except Refusal as refusal:
                error = error_frame(refusal, name[:MAX_TOPIC_LENGTH])
                out.append(SendFrame(replace(error, subscription_stands=name in self.by_topic)))
                continue
            out += self._end(name)
            takes = name in frame.takes_snapshots
            subscription = Subscription(topic, name, cursor, takes_snapshots=takes)
            self.by_topic[name] = subscription
            out.append(JoinFeed(subscription))
        return out

    def unsubscribe(self, names: tuple[str, ...]) -> list[Command]:
        """End the subscriptions to `names`; names without a subscription are ignored."""
        return [command for name in names for command in self._end(name)]

    def end_all(self) -> list[Command]:
        """End all subscriptions: the connection ends."""
        return self.unsubscribe(tuple(self.by_topic))

    @property
    def served(self) -> Served:
        """The topics that are being served. It changes with `Serve` and `LeaveFeed` alone."""
        return tuple([(name, one.epoch) for name, one in self.by_topic.items() if one.position.next_seq > 0])

    # --------------------------------------------------------------------------------------------- the gateway

    def ready(
        self, subscription: Subscription, state: TopicState, owner_user_id: str, owner_org_id: str
    ) -> list[Command]:
        """Answer to JoinFeed: where the feed stands at this moment, and who owns the topic."""
        if not subscription.live:
            return []
        subscription.owners = owner_user_id, owner_org_id
        try:
            check_owner(self._grant, subscription.topic, *subscription.owners)
        except Refusal as refusal:
            return self.refused(subscription, refusal)
        return self._serve(subscription, state)

    def cursor_confirmed(self, subscription: Subscription, state: TopicState) -> list[Command]:
        """Answer to ConfirmCursor; `state` is where the feed stands at this moment."""
        if not subscription.live:
            return []
        subscription.confirmed = True
        return self._serve(subscription, state)

    def cursor_refused(
        self, subscription: Subscription, refusal: Refusal, state: TopicState, chain: bytes
    ) -> list[Command]:
        """Answer to ConfirmCursor: stale, or can't be confirmed now. `chain` is the source's own, if it differs."""
        if refusal.reason in STALE_REASONS:
            return self.stale(subscription, refusal.reason, state, chain)
        return self.refused(subscription, refusal)

    def snapshot(
        self, subscription: Subscription, state: TopicState, seq: int, payload: bytes, chain: bytes = b""
    ) -> list[Command]:
        """Answer to ReadSnapshot: the topic's state as of `seq`, and the chain value there if the topic has one.

        `state` is where the feed stands at this moment, in the snapshot's lineage; it may be behind the snapshot, and
        nothing is delivered before it gets there. As long as there are `unsent` parts, `snapshot_part` returns the
        next one.
        """
        if not subscription.live:
            return []
        part_bytes = self._part_bytes if subscription.takes_snapshots else 0
        subscription.unsent = UnsentSnapshot(subscription.name, seq, payload, part_bytes)
        stands = replace(state, head=max(state.head, seq))
        subscribed = self._subscribed(subscription, stands, Plan.SNAPSHOT, seq, chain)
        return [subscribed, *self.snapshot_part(subscription)]

    def snapshot_part(self, subscription: Subscription) -> list[Command]:
        """Return the next part of the snapshot for a client that can take more. Delivery begins after the last part."""
        unsent = subscription.unsent
        if not subscription.live or unsent is None:
            return []
        part = SendFrame(unsent.next())
        if unsent.sent < unsent.parts:
            return [part]
        subscription.unsent = None
        return [part, *self._deliver(subscription, unsent.seq)]

    def refused(self, subscription: Subscription, refusal: Refusal) -> list[Command]:
        """Answer to JoinFeed, or later news: the topic can't be served, or no longer."""
        if not subscription.live:
            return []
        error = error_frame(concealed(self._grant, subscription.topic, refusal), subscription.name)
        return [*self._end(subscription.name), SendFrame(error)]

    def stale(self, subscription: Subscription, reason: str, state: TopicState, chain: bytes = b"") -> list[Command]:
        """End it: the cursor can't be continued, the lineage being delivered has ended, or the floor has passed it."""
        if not subscription.live:
            return []
        why, cursor = "the cursor can't be continued", subscription.cursor
        if chain and cursor is not None:
            why = (
                f"the topic's chain at seq {cursor.applied_seq} is {chain.hex()}, the cursor's is {cursor.chain.hex()}"
            )
        refusal = Refusal(reason, f"{why}; drop this topic's state and subscribe without one")
        stands = as_asked(state, subscription.takes_snapshots)
        return [*self._end(subscription.name), SendFrame(error_frame(refusal, subscription.name, stands, chain))]

    @staticmethod
    def delivered(subscription: Subscription, first_seq: int, count: int) -> list[Command]:
        """Note that `count` events from `first_seq` on go to the client. Raises DeliveryBroken if they aren't next."""
        if not subscription.live:
            raise DeliveryBroken(f"{subscription.name} has ended")
        subscription.position.advance(first_seq, count)
        return _caught_up(subscription) if -1 < subscription.catch_up_to < subscription.next_seq else []

    # --------------------------------------------------------------------------------------------- inside

    def _serve(self, subscription: Subscription, state: TopicState) -> list[Command]:
        cursor = subscription.cursor
        if cursor is not None and subscription.confirmed:
            # The client may come from a gateway that has more. Nothing is delivered before the feed gets there.
            state = replace(state, head=max(state.head, cursor.applied_seq))
        asked = as_asked(state, subscription.takes_snapshots)
        start = plan_subscription(cursor, asked, subscription.topic.topic_class.replay_budget)
        if cursor is not None and not subscription.confirmed and _needs_source(cursor, start):
            return [ConfirmCursor(subscription, cursor)]
        if isinstance(start, Stale):
            return self.stale(subscription, start.reason, state)
        if start.plan is Plan.SNAPSHOT:
            return [ReadSnapshot(subscription)]
        subscribed = self._subscribed(subscription, state, start.plan, start.from_seq)
        return [subscribed, *self._deliver(subscription, start.from_seq)]

    @staticmethod
    def _subscribed(
        subscription: Subscription, state: TopicState, plan: Plan, from_seq: int, chain: bytes = b""
    ) -> SendFrame:
        subscription.epoch = state.epoch
        subscription.catch_up_to = state.head
        name = subscription.name
        return SendFrame(frames.Subscribed(name, state.epoch, state.floor, state.head, plan, from_seq, chain))

    @staticmethod
    def _deliver(subscription: Subscription, from_seq: int) -> list[Command]:
        subscription.position.next_seq = from_seq + 1
        caught_up = _caught_up(subscription) if from_seq == subscription.catch_up_to else []
        return [*caught_up, Serve(subscription)]

    def _check_room(self, name: str, now_ms: int) -> None:
        wait_ms = self._rate.take(now_ms * MS_NS).wait_ms
        if wait_ms:
            raise Refusal("rate_limited", "too many subscriptions a second; wait", retry_after_ms=wait_ms)
        if name not in self.by_topic and len(self.by_topic) >= self._max_topics:
            message = f"a connection holds at most {self._max_topics} topics; unsubscribe some"
            raise Refusal("too_many_topics", message)

    def _end(self, name: str) -> list[Command]:
        subscription = self.by_topic.pop(name, None)
        if subscription is None:
            return []
        subscription.live, subscription.unsent = False, None
        return [LeaveFeed(subscription)]


def heads_of(served: Served, standing: Standing) -> tuple[frames.TopicHead, ...]:
    """Return where topics stand, as a heartbeat says it."""
    heads = []
    for name, epoch in served:
        head, is_away = standing(name)
        heads.append(frames.TopicHead(name, head, epoch, is_away))
    return tuple(heads)


def error_frame(refusal: Refusal, topic: str, state: TopicState | None = None, chain: bytes = b"") -> frames.ErrorFrame:
    """Return the ERROR for `refusal`, about a topic or, if `topic` is empty, about the connection."""
    return frames.ErrorFrame(topic, refusal.reason, refusal.message, refusal.field, refusal.retry_hint_ms, state, chain)


def _needs_source(cursor: Cursor, start: Start | Stale) -> bool:
    """Whether only the source can say if the cursor can be continued: a feed has no chains, and may be behind."""
    return start.reason == AHEAD if isinstance(start, Stale) else bool(cursor.chain)


def _caught_up(subscription: Subscription) -> list[Command]:
    frame = frames.CaughtUp(subscription.name, subscription.catch_up_to)
    subscription.catch_up_to = -1
    return [SendFrame(frame)]


def _check_chain(topic: Topic, cursor: Cursor | None, field: str) -> None:
    if cursor is not None and cursor.chain and not topic.topic_class.chained:
        text = "topics of this class have no chain, so this is the cursor of another topic; use one of this topic"
        raise Refusal("invalid_value", text, field=field)


def _check_once(name: str, named: set[str], field: str) -> None:
    if name in named:
        text = "the topic is named twice in this frame, and its first entry counts; name each once"
        raise Refusal("invalid_value", text, field=field)
    named.add(name)
