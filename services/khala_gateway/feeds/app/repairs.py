"""Repairs holes in feeds from history."""

import asyncio
from collections.abc import Callable, Mapping

from oa_base.backoff import RECONNECT
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_khala.cursors import STALE_REASONS
from oa_khala.frames import TopicState
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.tasks.fair_slots import FairSlots
from services.khala_gateway.feeds import metrics
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import TopicSource, state_said

GiveUp = Callable[[str, Refusal], None]


class Repairs:
    """Reads the frames that feeds lack, one page after the other, for a few feeds of a source at the same time."""

    def __init__(
        self,
        limits: HubLimits,
        sources: Mapping[str, TopicSource],
        jitter: Callable[[], float],
        give_up: GiveUp,
    ) -> None:
        """`give_up` is told about topics whose events are lost: no subscriber is led past them."""
        self._limits = limits
        self._sources = sources
        self._jitter = jitter
        self._give_up = give_up
        self._slots = {name: FairSlots(limits.concurrent_repairs) for name in sources}
        self._running: dict[TopicFeed, asyncio.Task[None]] = {}

    def start(self, held: TopicFeed) -> None:
        """Repair `held`, if it has a hole and is not being repaired already."""
        if held.feed.hole is None or held in self._running:
            return
        metrics.HOLES.labels(held.topic.topic_class.name).inc()
        task = asyncio.create_task(self._repair(held), name=f"repair-{held.name}")
        self._running[held] = task

    async def stop(self) -> None:
        """Stop all repairs."""
        await cancel_and_wait(*self._running.values())

    async def _repair(self, held: TopicFeed) -> None:
        """Read history until nothing is missing, with backoff while it is not available."""
        attempt = 0
        try:
            while not held.dropped and held.feed.hole is not None:
                async with self._slots[held.topic.source].slot(held.owner):
                    moved = await self._read_page(held)
                attempt = 0 if moved else attempt + 1
                if not moved:
                    await asyncio.sleep(RECONNECT.wait_ms(attempt, self._jitter()) / 1000)
        finally:
            del self._running[held]

    async def _read_page(self, held: TopicFeed) -> bool:
        """Read one page of the missing frames. Returns True when the feed moved on."""
        feed, limits = held.feed, self._limits
        source, before = self._sources[held.topic.source], feed.head
        try:
            page = await source.replay(held.name, feed.epoch, before, limits.page_frames, limits.page_bytes)
        except Refusal as refusal:
            if held.dropped:
                return False  # what is said of it now is nothing to a later feed of the topic
            if refusal.reason in STALE_REASONS and held.feed is feed:
                held.end_lineage(refusal.reason, state_said(refusal, feed.state), spared=held.waiting)
                held.reopen()
                source.add([held.name])
            elif refusal.info.action is ClientAction.GIVE_UP:
                self._give_up(held.name, refusal)
            return False
        if held.feed is not feed or page.epoch != feed.epoch:
            return False
        feed.observe(TopicState(page.epoch, page.floor, page.head))
        held.take(page.first_seq, page.frames)
        return feed.head > before
