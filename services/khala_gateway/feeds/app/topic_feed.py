"""One topic in the gateway: its feed, who subscribes to it, and the joined pieces that all of them are written."""

from collections.abc import Callable, Iterable
from typing import Protocol

from oa_base.refusal import Refusal
from oa_khala.feed import Feed, FeedLimits
from oa_khala.frames import Form, TopicState
from oa_khala.topics import Topic
from services.khala_gateway.feeds.app.entries import EMPTY, Entry, Segment, entry_size, join
from services.khala_gateway.sources.app import WatchedTopic

# Subscribers of one topic stand at few different places: at the head, and where they are catching up.
_MAX_SEGMENTS = 32


class Subscriber(Protocol):
    """One connection's subscription to one topic."""

    def ready(self, feed: "TopicFeed") -> None:
        """The feed stands: `feed.state` is where."""
        ...

    def moved(self) -> None:
        """The feed has more."""
        ...

    def stale(self, reason: str, state: TopicState) -> None:
        """What was being delivered can't go on."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """The topic can't be had."""
        ...


class TopicFeed:
    """See the module. `feed` is None until the source carries the topic."""

    def __init__(self, topic: Topic, limits: FeedLimits, slice_frames: int, slice_bytes: int) -> None:
        self.topic = topic
        self.name = str(topic)
        self.feed: Feed[Entry] | None = None
        self.owner_user_id = ""
        self.owner_org_id = ""
        self.subscribers: dict[Subscriber, None] = {}
        # Those of them that have not been told yet where the feed stands.
        self.waiting: dict[Subscriber, None] = {}
        # The source has pruned what the feed still offers: nobody is told where it stands until that is known anew.
        self.outdated = False
        self.repairing = False
        self._limits = limits
        self._slice_frames = slice_frames
        self._slice_bytes = slice_bytes
        # By the seq that they start at, negative for the JSON form: a plain number is the cheapest key there is.
        self._segments: dict[int, Segment] = {}

    @property
    def state(self) -> TopicState:
        """Where the topic stands, as far as it can be delivered. Only for a feed that stands."""
        assert self.feed is not None
        return self.feed.state

    @property
    def head(self) -> int:
        """Newest seq that can be delivered; 0 before the feed stands."""
        return self.feed.head if self.feed is not None else 0

    def stand(self, watched: WatchedTopic) -> None:
        """The source carries the topic: begin afresh at its head, with an empty ring."""
        self.feed = Feed(watched.state, entry_size, self._limits)
        self.owner_user_id = watched.owner_user_id
        self.owner_org_id = watched.owner_org_id
        self._segments.clear()

    def offer(self, first_seq: int, entries: list[Entry]) -> bool:
        """Entries, live or from history. True when there is more to deliver."""
        if self.feed is None or not self.feed.offer(first_seq, entries):
            return False
        self._segments.clear()
        return True

    def segment(self, next_seq: int, form: Form) -> Segment | None:
        """The next piece from `next_seq` on, joined once for all who stand there; None when that is below the ring."""
        feed = self.feed
        if feed is None or next_seq > feed.head:
            return EMPTY
        key = next_seq if form is Form.PROTO else -next_seq
        segment = self._segments.get(key)
        if segment is None:
            entries = feed.slice(next_seq, self._slice_frames, self._slice_bytes)
            if entries is None:
                return None
            if len(self._segments) >= _MAX_SEGMENTS:
                self._segments.clear()
            segment = self._segments[key] = join(entries, form)
        return segment

    def tell(self, what: Callable[[Subscriber], None], whom: Iterable[Subscriber]) -> None:
        """Tell subscribers something; those that leave meanwhile are spared."""
        for subscriber in list(whom):
            if subscriber in self.subscribers:
                what(subscriber)
