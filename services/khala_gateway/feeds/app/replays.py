"""Reads of history for subscribers that are behind the ring: one read for all that want the same page at the same time.

A read that is under way may be joined only by a subscriber that was registered on the feed before the read began:
what the read doesn't have yet, the feed then does. Who comes later waits until it ends, and with all who came
meanwhile shares the next one: a thousand clients that come back at the same cursor cost two reads.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from oa_khala.frames import Form, TopicState
from oa_khala.topics import Topic
from services.khala_gateway.feeds.app.entries import Entry, Segment, join
from services.khala_gateway.feeds.metrics import REPLAY_JOINED, REPLAY_READS
from services.khala_gateway.sources.app import HistoryPage, TopicSource


class ReplayPage:
    """A page of history, encoded once for everybody who waits for it."""

    def __init__(self, page: HistoryPage) -> None:
        self.epoch = page.epoch
        self.state = TopicState(page.epoch, page.floor, page.head)
        self.first_seq = page.first_seq
        self._entries = [Entry(frame) for frame in page.frames]
        self._segments: dict[Form, Segment] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def segment(self, form: Form) -> Segment:
        """The whole page in `form`."""
        if form not in self._segments:
            self._segments[form] = join(self.first_seq, self._entries, form)
        return self._segments[form]


@dataclass(frozen=True, slots=True)
class _Read:
    task: asyncio.Task[ReplayPage]
    began_at: int


class ReplayReader:
    """Single-flight reads of pages of at most `page_frames` frames and `page_bytes` bytes."""

    def __init__(self, sources: Mapping[str, TopicSource], page_frames: int, page_bytes: int) -> None:
        self._sources = sources
        self._page_frames = page_frames
        self._page_bytes = page_bytes
        self._reads: dict[tuple[str, str, int], _Read] = {}
        self._ticks = 0

    def tick(self) -> int:
        """The next moment in the order of registrations and beginnings of reads."""
        self._ticks += 1
        return self._ticks

    async def read(self, topic: Topic, epoch: str, after_seq: int, registered_at: int) -> ReplayPage:
        """The page from `after_seq + 1` on, for a subscriber registered at that tick. Raises Refusal."""
        key = (str(topic), epoch, after_seq)
        while (read := self._reads.get(key)) is not None and read.began_at < registered_at:
            await asyncio.wait([read.task])
        if read is None:
            read = self._begin(topic, key)
        else:
            REPLAY_JOINED.labels(topic.source).inc()
        # Shielded: one connection that goes away must not take the page from the others.
        return await asyncio.shield(read.task)

    def _begin(self, topic: Topic, key: tuple[str, str, int]) -> _Read:
        REPLAY_READS.labels(topic.source).inc()
        read = _Read(asyncio.create_task(self._fetch(topic, key)), self.tick())
        self._reads[key] = read

        def ended(task: asyncio.Task[ReplayPage]) -> None:
            if self._reads.get(key) is read:
                del self._reads[key]
            if not task.cancelled():
                task.exception()  # whoever waited has it; if nobody is left, nobody needs it

        read.task.add_done_callback(ended)
        return read

    async def _fetch(self, topic: Topic, key: tuple[str, str, int]) -> ReplayPage:
        name, epoch, after_seq = key
        source = self._sources[topic.source]
        return ReplayPage(await source.replay(name, epoch, after_seq, self._page_frames, self._page_bytes))
