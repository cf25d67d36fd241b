"""All feeds of the gateway: opened for the first subscriber, repaired when the fanout loses, dropped after the last.

A source goes away and comes back without anybody being told: sockets stay open, delivery pauses, and the `watched`
that follows a reconnection shows what was missed, which is then a hole like any other.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Self

import structlog

from oa_base.backoff import RECONNECT
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_khala.cursors import STALE_REASONS
from oa_khala.frames import TopicState
from oa_khala.topics import Topic
from services.khala_gateway.feeds import metrics
from services.khala_gateway.feeds.app.entries import Entry
from services.khala_gateway.feeds.app.topic_feed import Subscriber, TopicFeed
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app import TopicSource, WatchedTopic

_log = structlog.get_logger(__name__)
# What a source refuses only for now.
_PASSING = frozenset({ClientAction.RETRY, ClientAction.RECONNECT})


class FeedHub:
    """See the module. Implements `SourceEvents`; call `run_audit` in the background."""

    def __init__(self, limits: HubLimits, sources: Mapping[str, TopicSource], jitter: Callable[[], float]) -> None:
        """`sources` by name ("runtime", "projector"); `jitter` gives uniform numbers in [0, 1)."""
        self._limits = limits
        self._sources = sources
        self._jitter = jitter
        # All topics that are held, by name.
        self.feeds: dict[str, TopicFeed] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._repairs: set[asyncio.Task[None]] = set()
        self._repair_slots = {name: asyncio.Semaphore(limits.concurrent_repairs) for name in sources}

    # --------------------------------------------------------------------------------------------- subscribers

    def attach(self, topic: Topic, subscriber: Subscriber) -> None:
        """Register `subscriber`. It is told `ready`, at once if the feed is up to date, or `refused`; then `moved`."""
        held = self.feeds.get(str(topic)) or self._open(topic)
        if not held.subscribers:
            self._set_timer(held, None)
        held.subscribers[subscriber] = None
        metrics.SUBSCRIPTIONS.labels(topic.topic_class.name).inc()
        if held.feed is not None and not held.outdated:
            subscriber.ready(held)
            return
        held.waiting[subscriber] = None
        if len(held.waiting) == 1:
            self._set_timer(held, self._limits.attach_timeout_ms, self._not_carried)

    def detach(self, topic: Topic, subscriber: Subscriber) -> None:
        """`subscriber` leaves; after the last one the feed lingers, then goes."""
        held = self.feeds.get(str(topic))
        if held is None or subscriber not in held.subscribers:
            return
        del held.subscribers[subscriber]
        held.waiting.pop(subscriber, None)
        metrics.SUBSCRIPTIONS.labels(topic.topic_class.name).dec()
        if not held.subscribers:
            self._set_timer(held, self._limits.linger_ms, self._drop)

    def learned(self, topic: Topic, state: TopicState) -> None:
        """A page of history said where the topic stands."""
        held = self.feeds.get(str(topic))
        if held is not None and held.feed is not None and held.feed.observe(state):
            self._repair(held)

    def outdated(self, topic: Topic) -> None:
        """History refused what the feed offered: whoever comes now waits until the source has said where it stands."""
        held = self.feeds.get(str(topic))
        if held is not None and not held.outdated:
            held.outdated = True
            self._source(held).add([held.name])

    def head_of(self, topic: str) -> int:
        """Newest deliverable seq of a topic; 0 when it isn't held."""
        held = self.feeds.get(topic)
        return held.head if held is not None else 0

    # --------------------------------------------------------------------------------------------- sources

    def watched(self, watched: WatchedTopic) -> None:
        """A source carries a topic, anew or still."""
        held = self.feeds.get(watched.topic)
        if held is None:
            return
        waiting, held.waiting, held.outdated = held.waiting, {}, False
        if waiting:
            self._set_timer(held, None)
        if held.feed is None:
            held.stand(watched)
        elif not held.feed.observe(watched.state):
            self._lineage_ended(held, "epoch_mismatch", watched.state, spared=waiting)
            held.stand(watched)
        held.tell(lambda subscriber: subscriber.ready(held), waiting)
        self._repair(held)

    def refused(self, topic: str, refusal: Refusal) -> None:
        """A source can't carry a topic. A feed that stands outlives what passes; else nobody gets the topic."""
        held = self.feeds.get(topic)
        if held is None:
            return
        passing = held.feed is not None and refusal.info.action in _PASSING
        held.tell(lambda subscriber: subscriber.refused(refusal), held.waiting if passing else held.subscribers)
        if not passing:
            self._drop(held)

    def frames(self, topic: str, epoch: str, first_seq: int, frames: Sequence[bytes]) -> None:
        """Live frames of a topic."""
        held = self.feeds.get(topic)
        if held is None or held.feed is None:
            return
        if held.feed.epoch != epoch:
            # Another lineage: what it is and where it stands, only `watched` can tell.
            self._source(held).add([topic])
            return
        metrics.LIVE_FRAMES.labels(held.topic.source).inc(len(frames))
        self._take(held, first_seq, frames)
        self._repair(held)

    async def run_audit(self) -> None:
        """Now and then asks where the topics stand: the one loss that no later frame would show is that of the last."""
        while True:
            await asyncio.sleep(self._limits.audit_interval_ms / 1000)
            for name, source in self._sources.items():
                held = (one for one in self.feeds.values() if one.topic.source == name and one.subscribers)
                source.add([one.name for one in held])

    async def __aenter__(self) -> Self:
        """Nothing has to be started: feeds come with their subscribers."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop all repairs and timers."""
        for handle in self._timers.values():
            handle.cancel()
        for task in self._repairs:
            task.cancel()
        await asyncio.gather(*self._repairs, return_exceptions=True)

    # --------------------------------------------------------------------------------------------- inside

    def _open(self, topic: Topic) -> TopicFeed:
        limits = self._limits
        held = TopicFeed(topic, limits.feed, limits.slice_frames, limits.slice_bytes)
        self.feeds[held.name] = held
        metrics.FEEDS.labels(topic.topic_class.name).inc()
        self._source(held).add([held.name])
        return held

    def _drop(self, held: TopicFeed) -> None:
        self._set_timer(held, None)
        if self.feeds.get(held.name) is held:
            del self.feeds[held.name]
            metrics.FEEDS.labels(held.topic.topic_class.name).dec()
            self._source(held).remove([held.name])

    def _not_carried(self, held: TopicFeed) -> None:
        message = "the source of this topic can't be reached now; subscribe again"
        self.refused(held.name, Refusal("unavailable", message, retry_after_ms=1_000))

    def _source(self, held: TopicFeed) -> TopicSource:
        return self._sources[held.topic.source]

    def _set_timer(
        self, held: TopicFeed, delay_ms: int | None, then: Callable[[TopicFeed], None] | None = None
    ) -> None:
        old = self._timers.pop(held.name, None)
        if old is not None:
            old.cancel()
        if delay_ms is not None and then is not None:
            loop = asyncio.get_running_loop()
            self._timers[held.name] = loop.call_later(delay_ms / 1000, then, held)

    def _take(self, held: TopicFeed, first_seq: int, frames: Sequence[bytes]) -> None:
        if held.offer(first_seq, [Entry(frame) for frame in frames]):
            held.tell(_moved, held.subscribers)

    def _lineage_ended(
        self, held: TopicFeed, reason: str, state: TopicState, spared: Collection[Subscriber] = ()
    ) -> None:
        """What is being delivered can't go on; `spared` are those to whom nothing has been delivered yet."""
        metrics.LINEAGES_ENDED.labels(held.topic.topic_class.name).inc()
        _log.warning("lineage_ended", topic=held.name, reason=reason, epoch=state.epoch)
        served = [subscriber for subscriber in held.subscribers if subscriber not in spared]
        held.tell(lambda subscriber: subscriber.stale(reason, state), served)

    def _repair(self, held: TopicFeed) -> None:
        if held.feed is None or held.feed.hole is None or held.repairing:
            return
        held.repairing = True
        metrics.HOLES.labels(held.topic.topic_class.name).inc()
        task = asyncio.create_task(self._repair_hole(held), name=f"repair-{held.name}")
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)

    async def _repair_hole(self, held: TopicFeed) -> None:
        """Reads history until nothing is missing, with backoff while it is not to be had."""
        attempt = 0
        try:
            while self.feeds.get(held.name) is held and held.feed is not None and held.feed.hole is not None:
                async with self._repair_slots[held.topic.source]:
                    moved = await self._repair_once(held)
                attempt = 0 if moved else attempt + 1
                if not moved:
                    await asyncio.sleep(RECONNECT.wait_ms(attempt, self._jitter()) / 1000)
        finally:
            held.repairing = False

    async def _repair_once(self, held: TopicFeed) -> bool:
        """Reads one page of what is missing. True when the feed moved on."""
        feed = held.feed
        assert feed is not None
        limits = self._limits
        before = feed.head
        try:
            page = await self._source(held).replay(held.name, feed.epoch, before, limits.page_frames, limits.page_bytes)
        except Refusal as refusal:
            if refusal.reason in STALE_REASONS and held.feed is feed:
                self._lineage_ended(held, refusal.reason, feed.state, spared=held.waiting)
                held.feed = None
                self._source(held).add([held.name])
            elif refusal.info.action is ClientAction.GIVE_UP:
                self.refused(held.name, refusal)  # events are lost: nobody is led past them
            return False
        if held.feed is not feed or page.epoch != feed.epoch:
            return False
        feed.observe(TopicState(page.epoch, page.floor, page.head))
        self._take(held, page.first_seq, page.frames)
        return feed.head > before


def _moved(subscriber: Subscriber) -> None:
    subscriber.moved()
