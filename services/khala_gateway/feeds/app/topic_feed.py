"""One topic in the gateway: its feed, its subscribers, and the joined segments that are written to all of them."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_khala.feed import Feed
from oa_khala.frames import TopicState
from oa_khala.server.commands import DeliveryBroken
from oa_khala.topics import Topic
from oa_topics.watcher import Origin
from services.khala_gateway.feeds import metrics
from services.khala_gateway.feeds.app.arrivals import Arrivals, deliver
from services.khala_gateway.feeds.app.cohort import Cohort, Member
from services.khala_gateway.feeds.app.entries import EMPTY, Entry, Segment, entry_size, join
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.domain import ENCODINGS, Encoding
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import TopicSource, WatchedTopic

_log = structlog.get_logger(__name__)
# Before the source has said where a topic stands, nothing is known about it.
_NOWHERE = TopicState("", 0, 0)
# Subscribers of one topic are at few different positions: at the head, and where they are catching up.
_MAX_SEGMENTS = 32


class Subscriber(Member, Protocol):
    """One connection's subscription to one topic."""

    def ready(self, feed: "TopicFeed") -> None:
        """Note that the feed stands, at `feed.state`."""
        ...

    def moved(self) -> None:
        """Note that the feed has more. A subscriber that left because others were told is still called."""
        ...

    def stale(self, reason: str, state: TopicState) -> None:
        """Note that the current delivery can't continue."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """Note that the topic is not available."""
        ...


class Phase(Enum):
    """What is known about where a topic stands."""

    OPENING = "opening"  # nothing yet: the source has been asked
    CURRENT = "current"
    OUTDATED = "outdated"  # the source has pruned frames that the feed still offers, and has been asked again


class TopicFeed:
    """See the module. While the feed is opening or outdated, no subscriber is told where it stands: new ones wait."""

    def __init__(self, topic: Topic, source: TopicSource, limits: HubLimits, flusher: Flusher) -> None:
        self.topic = topic
        self.source = source
        self.name = str(topic)
        self.phase = Phase.OPENING
        self.feed: Feed[Entry] = Feed(_NOWHERE, entry_size, limits.feed)
        self.owner_user_id = ""
        self.owner_org_id = ""
        self.subscribers: dict[Subscriber, None] = {}
        # Subscribers that are delivered to together, by the number of their encoding; and all others.
        self._cohorts: dict[int, Cohort[Subscriber]] = {}
        self._apart: dict[Subscriber, None] = {}
        # Subscribers that have not been told yet where the feed stands.
        self.waiting: dict[Subscriber, None] = {}
        self.dropped = False
        self._count = metrics.SUBSCRIPTIONS.labels(topic.topic_class.name)
        self._limits = limits
        self._flusher = flusher
        self._arrivals = Arrivals()
        # Segments by their first seq and encoding, combined into one number.
        self._segments: dict[int, Segment] = {}

    @property
    def owner(self) -> str:
        """The org that it belongs to, or the person if it belongs to no org; empty while nothing is known."""
        return self.owner_org_id or self.owner_user_id

    @property
    def stands(self) -> bool:
        """Whether the source has said where the topic stands, so that it can be delivered."""
        return self.phase is not Phase.OPENING

    @property
    def state(self) -> TopicState:
        """Where the topic stands, as far as it can be delivered."""
        return self.feed.state

    @property
    def head(self) -> int:
        """The newest seq that can be delivered; 0 before the feed stands."""
        return self.feed.head

    def add(self, subscriber: Subscriber) -> None:
        """Take in a subscriber."""
        self.subscribers[subscriber] = None
        self._apart[subscriber] = None
        self._count.inc()

    def remove(self, subscriber: Subscriber) -> None:
        """Let a subscriber go."""
        self.part(subscriber)
        del self.subscribers[subscriber]
        del self._apart[subscriber]
        self.waiting.pop(subscriber, None)
        self._count.dec()

    def gather(self, subscriber: Subscriber) -> None:
        """Deliver to `subscriber` together with others from now on, if it has been given everything."""
        if subscriber not in self._apart or subscriber.subscription.next_seq != self.feed.head + 1:
            return
        encoding = subscriber.encoding
        cohort = self._cohorts.get(encoding.number) or Cohort[Subscriber](encoding, self.feed.head + 1)
        if cohort.join(subscriber):
            self._cohorts[encoding.number] = cohort
            del self._apart[subscriber]

    def part(self, subscriber: Subscriber) -> None:
        """Deliver to `subscriber` by itself again, for example because its socket accepts no more."""
        cohort = self._cohorts.get(subscriber.encoding.number)
        if cohort is not None and subscriber in cohort:
            cohort.leave(subscriber)
            self._apart[subscriber] = None
            if not cohort:
                del self._cohorts[subscriber.encoding.number]

    def stand(self, watched: WatchedTopic) -> None:
        """Begin anew at the topic's head with an empty ring, because the source carries the topic."""
        self._begin_at(watched.state)
        self.phase = Phase.CURRENT
        self.owner_user_id = watched.owner_user_id
        self.owner_org_id = watched.owner_org_id

    def reopen(self) -> None:
        """Return to `OPENING`, because the lineage is over and the next one is not known yet."""
        self._begin_at(_NOWHERE)
        self.phase = Phase.OPENING

    def take(self, first_seq: int, frames: Sequence[bytes], origin: Origin | None = None) -> None:
        """Take frames, live or from history. The next flush tells subscribers that there is more to deliver."""
        last_seq = first_seq + len(frames) - 1
        if origin is not None and last_seq > self.feed.head:
            self._arrivals.came(last_seq, origin)
        if self.feed.offer(first_seq, [Entry(frame) for frame in frames]):
            self._segments.clear()
            self._flusher.ask(self)

    def pump(self) -> None:
        """Deliver what there is to all subscribers."""
        deliver(self._arrivals.up_to(self.feed.head), self._deliver, self._flusher)

    def segment(self, next_seq: int, encoding: Encoding) -> Segment | None:
        """The next segment from `next_seq` on, joined once for all who stand there; None if that is below the ring."""
        if next_seq > self.feed.head:
            return EMPTY
        key = next_seq * ENCODINGS + encoding.number
        segment = self._segments.get(key)
        if segment is None:
            entries = self.feed.slice(next_seq, self._limits.slice_frames, self._limits.slice_bytes)
            if entries is None:
                return None
            if len(self._segments) >= _MAX_SEGMENTS:
                self._segments.clear()
            segment = self._segments[key] = join(next_seq, entries, encoding)
        return segment

    def end_lineage(self, reason: str, state: TopicState, spared: Collection[Subscriber]) -> None:
        """Tell subscribers that delivery can't continue; not `spared`, to whom nothing has been delivered yet."""
        metrics.LINEAGES_ENDED.labels(self.topic.topic_class.name).inc()
        _log.warning("lineage_ended", topic=self.name, reason=reason, epoch=state.epoch)
        served = [subscriber for subscriber in self.subscribers if subscriber not in spared]
        self.tell(lambda subscriber: subscriber.stale(reason, state), served)

    def tell(self, what: Callable[[Subscriber], None], whom: Iterable[Subscriber]) -> None:
        """Tell subscribers something, except those that leave meanwhile."""
        for subscriber in list(whom):
            if subscriber in self.subscribers:
                what(subscriber)

    def _deliver(self) -> None:
        for cohort in list(self._cohorts.values()):
            self._deliver_together(cohort)
        for subscriber in list(self._apart):
            subscriber.moved()

    def _deliver_together(self, cohort: Cohort[Subscriber]) -> None:
        """Deliver to a cohort up to the head. If one write does not get there, each member is delivered to by itself,
        so that others get their turns in between; and so it is if anything fails, which ends those that it hits."""
        segment: Segment | None = None
        with contextlib.suppress(Exception):
            segment = self.segment(cohort.position.next_seq, cohort.encoding)
        if segment is EMPTY:
            return
        if segment is not None and segment.first_seq + segment.frames > self.feed.head:
            with contextlib.suppress(DeliveryBroken):
                cohort.deliver(segment, self._flusher)
                return
        self._dissolve(cohort)

    def _dissolve(self, cohort: Cohort[Subscriber]) -> None:
        for member in cohort.members:
            self.part(member)

    def _begin_at(self, state: TopicState) -> None:
        for cohort in list(self._cohorts.values()):
            self._dissolve(cohort)
        self.feed = Feed(state, entry_size, self._limits.feed)
        self._arrivals.forget()
        self._segments.clear()
