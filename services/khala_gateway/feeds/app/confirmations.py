"""Asks sources whether cursors match what the topics hold, with one question for all clients that send the same cursor
at the same time.

Only a source knows. Answers are not kept: a thousand clients that come back together cost a few questions, and a
source's answer about one history is never used for another.
"""

import asyncio
from collections.abc import Mapping

from oa_khala.frames import Cursor
from oa_khala.topics import Topic
from oa_platform.tasks.fair_slots import FairSlots
from services.khala_gateway.feeds.metrics import CURSORS_CONFIRMED
from services.khala_gateway.sources.app.ports import TopicSource

_Question = tuple[str, Cursor]


class Confirmations:
    """Single-flight questions, at most `concurrent` of them to one source at the same time."""

    def __init__(self, sources: Mapping[str, TopicSource], concurrent: int) -> None:
        self._sources = sources
        self._slots = {name: FairSlots(concurrent) for name in sources}
        self._asked: dict[_Question, asyncio.Task[None]] = {}

    async def confirm(self, topic: Topic, cursor: Cursor, owner: str = "") -> None:
        """Return if `cursor` can be resumed. Owners of topics have their turns.

        Raises Refusal: what makes it stale, or why the source can't say.
        """
        question = (str(topic), cursor)
        task = self._asked.get(question)
        if task is None:
            task = self._asked[question] = asyncio.create_task(self._ask(topic, cursor, owner))
            task.add_done_callback(lambda task: self._answered(question, task))
        # Shielded: a connection that goes away must not take the answer from the others.
        await asyncio.shield(task)

    async def _ask(self, topic: Topic, cursor: Cursor, owner: str) -> None:
        async with self._slots[topic.source].slot(owner):
            CURSORS_CONFIRMED.labels(topic.source).inc()
            await self._sources[topic.source].replay(
                str(topic), cursor.epoch, cursor.applied_seq, max_frames=1, max_bytes=1, after_chain=cursor.chain
            )

    def _answered(self, question: _Question, task: asyncio.Task[None]) -> None:
        del self._asked[question]
        if not task.cancelled():
            task.exception()  # callers that waited have it; if none are left, nobody needs it
