"""Reads snapshots from sources: one for all who want the same topic's at once. None is kept: the next one is newer."""

import asyncio
from collections.abc import Mapping

from oa_khala.topics import Topic
from services.khala_gateway.feeds.metrics import SNAPSHOTS_READ
from services.khala_gateway.sources.app import TopicSnapshot, TopicSource


class Snapshots:
    """Single-flight reads, at most `concurrent` of them at the same time from one source."""

    def __init__(self, sources: Mapping[str, TopicSource], concurrent: int) -> None:
        self._sources = sources
        self._slots = {name: asyncio.Semaphore(concurrent) for name in sources}
        self._reading: dict[str, asyncio.Task[TopicSnapshot]] = {}

    async def read(self, topic: Topic) -> TopicSnapshot:
        """The topic's state, as of some moment after its feed stood. Raises Refusal."""
        name = str(topic)
        task = self._reading.get(name)
        if task is None:
            task = self._reading[name] = asyncio.create_task(self._read(topic))
            task.add_done_callback(lambda task: self._done(name, task))
        # Shielded: one connection that goes away must not take it from the others.
        return await asyncio.shield(task)

    async def _read(self, topic: Topic) -> TopicSnapshot:
        async with self._slots[topic.source]:
            SNAPSHOTS_READ.labels(topic.source).inc()
            return await self._sources[topic.source].snapshot(str(topic))

    def _done(self, name: str, task: asyncio.Task[TopicSnapshot]) -> None:
        del self._reading[name]
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody is left, nobody needs it
