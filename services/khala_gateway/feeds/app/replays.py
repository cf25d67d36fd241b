"""Reads of history for subscribers that are behind the ring: one read for all that want the same page at the same time.

A subscriber may join a read that is under way only if it was registered on the feed before the read began: the feed
then has whatever the read doesn't have yet. A subscriber that comes later waits until the read ends and takes its page,
because a page that holds frames is kept for a moment. A thousand clients that come back at the same cursor cost one
read, and one more for what has happened since.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from oa_khala.frames import TopicState
from oa_khala.topics import Topic
from oa_platform.tasks.fair_slots import FairSlots
from services.khala_gateway.feeds.app.entries import Entry, Segment, entry_size, join
from services.khala_gateway.feeds.app.kept_pages import KeptPages
from services.khala_gateway.feeds.domain import Encoding
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.feeds.metrics import REPLAY_JOINED, REPLAY_KEPT, REPLAY_READS
from services.khala_gateway.sources.app.ports import HistoryPage, TopicSource

_Key = tuple[str, str, int]
"""Topic, epoch, and the seq that the page comes after."""


class ReplayPage:
    """A page of history, encoded once for all subscribers that wait for it."""

    def __init__(self, page: HistoryPage) -> None:
        self.epoch = page.epoch
        self.state = TopicState(page.epoch, page.floor, page.head)
        self.first_seq = page.first_seq
        self._entries = [Entry(frame) for frame in page.frames]
        self._segments: dict[int, Segment] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """The size of its frames in bytes."""
        return sum(map(entry_size, self._entries))

    def segment(self, encoding: Encoding) -> Segment:
        """The whole page in `encoding`."""
        if encoding.number not in self._segments:
            self._segments[encoding.number] = join(self.first_seq, self._entries, encoding)
        return self._segments[encoding.number]


@dataclass(frozen=True, slots=True)
class _Read:
    task: asyncio.Task[ReplayPage]
    began_at: int


class ReplayReader:
    """Single-flight reads of pages, of which the newest are kept for a moment."""

    def __init__(self, sources: Mapping[str, TopicSource], limits: HubLimits) -> None:
        self._sources = sources
        self._limits = limits
        self._slots = {name: FairSlots(limits.concurrent_replays) for name in sources}
        self._kept: KeptPages[_Key, ReplayPage] = KeptPages(limits.kept_pages_bytes, limits.kept_pages_ms / 1000)
        self._reads: dict[_Key, _Read] = {}
        # Looked up once: one is counted for each client that comes back.
        self._kept_counts = {name: REPLAY_KEPT.labels(name) for name in sources}
        self._ticks = 0

    def tick(self) -> int:
        """The next number in the order of registrations and starts of reads."""
        self._ticks += 1
        return self._ticks

    async def read(self, topic: Topic, epoch: str, after_seq: int, registered_at: int, owner: str = "") -> ReplayPage:
        """The page from `after_seq + 1` on, for a subscriber registered at that tick.

        Owners of topics have their turns. Raises Refusal.
        """
        key = (str(topic), epoch, after_seq)
        if (kept := self.kept(topic, epoch, after_seq)) is not None:
            return kept
        while (read := self._reads.get(key)) is not None and read.began_at < registered_at:
            await asyncio.wait([read.task])
            if (kept := self.kept(topic, epoch, after_seq)) is not None:
                return kept
        if read is None:
            read = self._begin(topic, key, owner)
        else:
            REPLAY_JOINED.labels(topic.source).inc()
        # Shielded: a connection that goes away must not take the page from the others.
        return await asyncio.shield(read.task)

    def kept(self, topic: Topic, epoch: str, after_seq: int) -> ReplayPage | None:
        """The page from `after_seq + 1` on, if it was read a moment ago."""
        kept = self._kept.get((str(topic), epoch, after_seq), _now_s())
        if kept is not None:
            self._kept_counts[topic.source].inc()
        return kept

    def _begin(self, topic: Topic, key: _Key, owner: str) -> _Read:
        REPLAY_READS.labels(topic.source).inc()
        read = _Read(asyncio.create_task(self._fetch(topic, key, owner)), self.tick())
        self._reads[key] = read

        def ended(task: asyncio.Task[ReplayPage]) -> None:
            if self._reads.get(key) is read:
                del self._reads[key]
            if not task.cancelled():
                task.exception()  # callers that waited have it; if none are left, nobody needs it

        read.task.add_done_callback(ended)
        return read

    async def _fetch(self, topic: Topic, key: _Key, owner: str) -> ReplayPage:
        name, epoch, after_seq = key
        limits = self._limits
        async with self._slots[topic.source].slot(owner):
            page = ReplayPage(
                await self._sources[topic.source].replay(name, epoch, after_seq, limits.page_frames, limits.page_bytes)
            )
        now_s = _now_s()
        self._kept.forget_old(now_s)
        if len(page):
            self._kept.keep(key, page, page.size_bytes, now_s)
        return page


def _now_s() -> float:
    return asyncio.get_running_loop().time()
