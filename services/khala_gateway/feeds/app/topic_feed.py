"""One topic in the gateway: its feed, who subscribes to it, and the joined pieces that all of them are written."""

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_khala.feed import Feed
from oa_khala.frames import TopicState
from oa_khala.topics import Topic
from oa_topics.watcher import Origin
from services.khala_gateway.feeds import metrics
from services.khala_gateway.feeds.app.arrivals import Arrivals, deliver
from services.khala_gateway.feeds.app.entries import EMPTY, Entry, Segment, entry_size, join
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.domain import ENCODINGS, Encoding
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import WatchedTopic

_log = structlog.get_logger(__name__)
# Before the source has said where a topic stands, nothing is known of it.
_NOWHERE = TopicState("", 0, 0)
# Subscribers of one topic stand at few different places: at the head, and where they are catching up.
_MAX_SEGMENTS = 32


class Subscriber(Protocol):
    """One connection's subscription to one topic."""

    def ready(self, feed: "TopicFeed") -> None:
        """The feed stands: `feed.state` is where."""
        ...

    def moved(self) -> None:
        """The feed has more. Who has left is told, too, when others' news made it leave."""
        ...

    def stale(self, reason: str, state: TopicState) -> None:
        """What was being delivered can't go on."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """The topic can't be had."""
        ...


class Phase(Enum):
    """What is known of where a topic stands."""

    OPENING = "opening"  # nothing yet: the source is asked
    CURRENT = "current"
    OUTDATED = "outdated"  # the source has pruned what the feed still offers, and is asked anew


class TopicFeed:
    """See the module. Nobody is told where it stands while it is opening or outdated: those who come wait."""

    def __init__(self, topic: Topic, limits: HubLimits, flusher: Flusher) -> None:
        self.topic = topic
        self.name = str(topic)
        self.phase = Phase.OPENING
        self.feed: Feed[Entry] = Feed(_NOWHERE, entry_size, limits.feed)
        self.owner_user_id = ""
        self.owner_org_id = ""
        self.subscribers: dict[Subscriber, None] = {}
        # Those of them that have not been told yet where the feed stands.
        self.waiting: dict[Subscriber, None] = {}
        self.dropped = False
        self._limits = limits
        self._flusher = flusher
        self._arrivals = Arrivals()
        # By the seq that they start at and the encoding, as one number.
        self._segments: dict[int, Segment] = {}

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
        """Newest seq that can be delivered; 0 before the feed stands."""
        return self.feed.head

    def stand(self, watched: WatchedTopic) -> None:
        """The source carries the topic: begin afresh at its head, with an empty ring."""
        self._begin_at(watched.state)
        self.phase = Phase.CURRENT
        self.owner_user_id = watched.owner_user_id
        self.owner_org_id = watched.owner_org_id

    def reopen(self) -> None:
        """The lineage is over, and which one comes next is not known yet."""
        self._begin_at(_NOWHERE)
        self.phase = Phase.OPENING

    def take(self, first_seq: int, frames: Sequence[bytes], origin: Origin | None = None) -> None:
        """Frames, live or from history; subscribers are told with the next flush that there is more to deliver."""
        last_seq = first_seq + len(frames) - 1
        if origin is not None and last_seq > self.feed.head:
            self._arrivals.came(last_seq, origin)
        if self.feed.offer(first_seq, [Entry(frame) for frame in frames]):
            self._segments.clear()
            self._flusher.ask(self)

    def pump(self) -> None:
        """Tell all subscribers that there is more."""
        deliver(self._arrivals.up_to(self.feed.head), list(self.subscribers), self._flusher)

    def segment(self, next_seq: int, encoding: Encoding) -> Segment | None:
        """The next piece from `next_seq` on, joined once for all who stand there; None when that is below the ring."""
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
        """What is being delivered can't go on; `spared` are those to whom nothing has been delivered yet."""
        metrics.LINEAGES_ENDED.labels(self.topic.topic_class.name).inc()
        _log.warning("lineage_ended", topic=self.name, reason=reason, epoch=state.epoch)
        served = [subscriber for subscriber in self.subscribers if subscriber not in spared]
        self.tell(lambda subscriber: subscriber.stale(reason, state), served)

    def tell(self, what: Callable[[Subscriber], None], whom: Iterable[Subscriber]) -> None:
        """Tell subscribers something; those that leave meanwhile are spared."""
        for subscriber in list(whom):
            if subscriber in self.subscribers:
                what(subscriber)

    def _begin_at(self, state: TopicState) -> None:
        self.feed = Feed(state, entry_size, self._limits.feed)
        self._arrivals.forget()
        self._segments.clear()
