"""All feeds of the gateway. A feed is opened for its first subscriber, repaired when the fanout loses frames, and
dropped after the last subscriber has left.

Subscribers are not told when a source goes away and comes back: sockets stay open, and delivery pauses. The `watched`
that follows a reconnection shows what was missed, which is then a hole like any other.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_khala.frames import TopicState
from oa_khala.topics import Topic
from oa_topics.watcher import Origin
from services.khala_gateway.feeds import metrics
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.repairs import Repairs
from services.khala_gateway.feeds.app.topic_feed import Phase, Subscriber, TopicFeed
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import TopicSource, WatchedTopic

# Actions of refusals that are only temporary.
_PASSING = frozenset({ClientAction.RETRY, ClientAction.RECONNECT})


class FeedHub:
    """See the module. Implements `SourceEvents`; call `run_audit` in the background."""

    def __init__(
        self, limits: HubLimits, sources: Mapping[str, TopicSource], jitter: Callable[[], float], flusher: Flusher
    ) -> None:
        """`sources` by name ("runtime", "projector"); `jitter` returns uniform numbers in [0, 1)."""
        self._limits = limits
        self._sources = sources
        self._flusher = flusher
        # All topics that the hub holds, by name.
        self.feeds: dict[str, TopicFeed] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._repairs = Repairs(limits, sources, jitter, self.refused)

    # --------------------------------------------------------------------------------------------- subscribers

    def join(self, topic: Topic, subscriber: Subscriber) -> None:
        """Register `subscriber`. It is told `ready`, at once if the feed is up to date, or `refused`; then `moved`."""
        held = self.feeds.get(str(topic)) or self._open(topic)
        if not held.subscribers:
            self._set_timer(held, None)
        held.add(subscriber)
        if held.phase is Phase.CURRENT:
            subscriber.ready(held)
            return
        held.waiting[subscriber] = None
        if len(held.waiting) == 1:
            self._set_timer(held, self._limits.carry_timeout_ms, self._not_carried)

    def leave(self, topic: Topic, subscriber: Subscriber) -> None:
        """Remove `subscriber`. After the last one has left, the feed lingers, and is then dropped."""
        held = self.feeds.get(str(topic))
        if held is None or subscriber not in held.subscribers:
            return
        held.remove(subscriber)
        if not held.subscribers:
            self._set_timer(held, self._limits.linger_ms, self._drop)

    def learned(self, topic: Topic, state: TopicState) -> None:
        """Note where the topic stands, according to a page of history."""
        held = self.feeds.get(str(topic))
        if held is not None and held.feed.observe(state):
            self._repairs.start(held)

    def outdated(self, topic: Topic) -> None:
        """Note that history refused what the feed offered: newcomers wait until the source says where it stands."""
        held = self.feeds.get(str(topic))
        if held is not None and held.phase is Phase.CURRENT:
            held.phase = Phase.OUTDATED
            held.source.add([held.name])

    def standing(self, topic: str) -> tuple[int, bool]:
        """The newest deliverable seq of a topic, and whether its source does not answer at present; 0 and False if the
        hub doesn't hold the topic."""
        held = self.feeds.get(topic)
        return (held.feed.head, held.source.away) if held is not None else (0, False)

    # --------------------------------------------------------------------------------------------- sources

    def watched(self, watched: WatchedTopic) -> None:
        """Note that a source carries a topic, anew or still."""
        held = self.feeds.get(watched.topic)
        if held is None:
            return
        waiting, held.waiting = held.waiting, {}
        if waiting:
            self._set_timer(held, None)
        if not held.stands:
            held.stand(watched)
        elif held.feed.observe(watched.state):
            held.phase = Phase.CURRENT
        else:
            held.end_lineage("epoch_mismatch", watched.state, spared=waiting)
            held.stand(watched)
        held.tell(lambda subscriber: subscriber.ready(held), waiting)
        self._repairs.start(held)

    def refused(self, topic: str, refusal: Refusal) -> None:
        """Note that a source can't carry a topic. A feed that stands survives a temporary refusal; otherwise all of its
        subscribers are refused."""
        held = self.feeds.get(topic)
        if held is None:
            return
        passing = held.stands and refusal.info.action in _PASSING
        held.tell(lambda subscriber: subscriber.refused(refusal), held.waiting if passing else held.subscribers)
        if not passing:
            self._drop(held)

    def frames(
        self, topic: str, epoch: str, first_seq: int, frames: Sequence[bytes], origin: Origin | None = None
    ) -> None:
        """Take live frames of a topic."""
        held = self.feeds.get(topic)
        if held is None or not held.stands:
            return
        if held.feed.epoch != epoch:
            # Another lineage: only `watched` can tell what it is and where it stands.
            held.source.add([topic])
            return
        metrics.LIVE_FRAMES.labels(held.topic.source).inc(len(frames))
        held.take(first_seq, frames, origin)
        self._repairs.start(held)

    async def run_audit(self) -> None:
        """Ask periodically where the topics stand, because no later frame shows the loss of the last one."""
        while True:
            await asyncio.sleep(self._limits.audit_interval_ms / 1000)
            for name, source in self._sources.items():
                held = (one for one in self.feeds.values() if one.topic.source == name and one.subscribers)
                source.add([one.name for one in held])

    async def __aenter__(self) -> Self:
        """Return the hub. Nothing has to be started, because feeds are opened for their subscribers."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop all repairs and timers."""
        for handle in self._timers.values():
            handle.cancel()
        await self._repairs.stop()

    # --------------------------------------------------------------------------------------------- inside

    def _open(self, topic: Topic) -> TopicFeed:
        held = TopicFeed(topic, self._sources[topic.source], self._limits, self._flusher)
        self.feeds[held.name] = held
        metrics.FEEDS.labels(topic.topic_class.name).inc()
        held.source.add([held.name])
        return held

    def _drop(self, held: TopicFeed) -> None:
        self._set_timer(held, None)
        if not held.dropped:
            held.dropped = True
            self._flusher.forget(held)
            del self.feeds[held.name]
            metrics.FEEDS.labels(held.topic.topic_class.name).dec()
            held.source.remove([held.name])

    def _not_carried(self, held: TopicFeed) -> None:
        message = "the source of this topic can't be reached now; subscribe again"
        self.refused(held.name, Refusal("unavailable", message, retry_after_ms=1_000))

    def _set_timer(
        self, held: TopicFeed, delay_ms: int | None, then: Callable[[TopicFeed], None] | None = None
    ) -> None:
        old = self._timers.pop(held.name, None)
        if old is not None:
            old.cancel()
        if delay_ms is not None and then is not None:
            loop = asyncio.get_running_loop()
            self._timers[held.name] = loop.call_later(delay_ms / 1000, then, held)
