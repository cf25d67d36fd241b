"""Reads snapshots from sources: one read for all clients that want the same topic's snapshot at the same time.

A snapshot stands at a seq, and delivery continues from there. So a snapshot that was read a moment ago is as good as a
new one, and is kept for a moment, like pages of history. A thousand clients that come together cost one read.
"""

import asyncio
from collections.abc import Mapping

from oa_base.refusal import Refusal
from oa_khala.frames import TopicState
from oa_khala.topics import Topic
from oa_platform.tasks.fair_slots import FairSlots
from services.khala_gateway.feeds.app.kept_pages import KeptPages
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.feeds.metrics import SNAPSHOTS_KEPT, SNAPSHOTS_READ
from services.khala_gateway.sources.app.ports import TopicSnapshot, TopicSource

_Key = tuple[str, bool]
"""Topic, and whether the snapshot is for clients that accept parts."""


class Snapshots:
    """Single-flight reads, of which the newest are kept for a moment."""

    def __init__(self, sources: Mapping[str, TopicSource], limits: HubLimits) -> None:
        self._sources = sources
        self._limits = limits
        self._slots = {name: FairSlots(limits.concurrent_snapshots) for name in sources}
        self._kept: KeptPages[_Key, TopicSnapshot] = KeptPages(
            limits.kept_snapshots_bytes, limits.kept_snapshots_ms / 1000
        )
        self._reading: dict[_Key, asyncio.Task[TopicSnapshot]] = {}

    async def read(self, topic: Topic, state: TopicState, in_parts: bool, owner: str = "") -> TopicSnapshot:
        """The topic's state as of some moment of `state`'s lineage, not below its floor, or of a later lineage.

        Owners of topics have their turns. Raises Refusal.
        """
        key = (str(topic), in_parts)
        kept = self._kept.get(key, _now_s())
        if kept is not None and kept.epoch == state.epoch and kept.seq >= state.floor:
            SNAPSHOTS_KEPT.labels(topic.source).inc()
            return kept
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._read(topic, key, owner))
            task.add_done_callback(lambda task: self._done(key, task))
        # Shielded: a connection that goes away must not take the snapshot from the others.
        return await asyncio.shield(task)

    async def _read(self, topic: Topic, key: _Key, owner: str) -> TopicSnapshot:
        name, in_parts = key
        limits = self._limits
        async with self._slots[topic.source].slot(owner):
            SNAPSHOTS_READ.labels(topic.source).inc()
            max_bytes = limits.list_snapshot_bytes if in_parts else 0
            found = await self._sources[topic.source].snapshot(name, max_bytes)
        if len(found.payload) > limits.snapshot_max_bytes:
            text = f"the topic's snapshot is larger than {limits.snapshot_max_bytes} bytes; follow it without snapshots"
            raise Refusal("payload_too_large", text)
        now_s = _now_s()
        self._kept.forget_old(now_s)
        self._kept.keep(key, found, len(found.payload), now_s)
        return found

    def _done(self, key: _Key, task: asyncio.Task[TopicSnapshot]) -> None:
        del self._reading[key]
        if not task.cancelled():
            task.exception()  # callers that waited have it; if none are left, nobody needs it


def _now_s() -> float:
    return asyncio.get_running_loop().time()
