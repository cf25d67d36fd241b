"""Topics that the projector serves, from the journal. One that nothing was written to yet has head 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Protocol

from oa_base.refusal import Refusal
from oa_khala.frames import TopicState
from oa_khala.topics import Source, Topic
from oa_topics.hub import TopicHub
from oa_topics.store import TopicDescription
from services.projector.journal.domain import NOWHERE, JournalEntry, JournalRow, TopicPosition


class JournalStore(Protocol):
    """The topics' journals, for those who watch and replay. Raises Refusal when the database is away."""

    async def epoch(self) -> str:
        """Lineage of all journal topics."""

    async def positions(self, topics: Collection[str]) -> dict[str, TopicPosition]:
        """Where the topics stand; those without a row are left out."""

    async def page(self, topic: str, after_seq: int, limit: int) -> list[JournalRow]:
        """At most `limit` rows after `after_seq`, in order."""


class JournalWriter(Protocol):
    """The journals in a batch's transaction."""

    async def append(self, entries: Sequence[JournalEntry]) -> list[JournalRow]:
        """Append to topics and give each entry its seq; sorted by topic and seq."""


class JournalTopics:
    """`oa_topics.store.TopicStore`."""

    source: Source = "projector"

    def __init__(self, journal: JournalStore) -> None:
        self._journal = journal
        self._epoch = ""

    async def epoch(self) -> str:
        """See TopicStore. It never changes while the process lives."""
        if not self._epoch:
            self._epoch = await self._journal.epoch()
        return self._epoch

    async def describe(self, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        """See TopicStore. The owner stands in the topic's name."""
        epoch = await self.epoch()
        positions = await self._journal.positions([str(topic) for topic in topics])
        found: dict[Topic, TopicDescription] = {}
        for topic in topics:
            position = positions.get(str(topic), NOWHERE)
            by_user = topic.topic_class.prefix == "user:"
            owner_user_id, owner_org_id = (topic.subject_id, "") if by_user else ("", topic.subject_id)
            state = TopicState(epoch, position.floor, position.head)
            found[topic] = TopicDescription(topic, state, owner_user_id, owner_org_id)
        return found

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        return [(row.seq, row.payload) for row in await self._journal.page(str(topic), after_seq, max_events)]

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore. Summaries have no chain."""
        return None

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        return Refusal("internal", f"the journal of {topic} has no seq {seq}; report it")


class Unreported:
    """`oa_topics.hub.HubReport` of a source that has no metrics for it."""

    def watching(self, difference: int) -> None:
        """See HubReport."""

    def dropped(self, frames: int) -> None:
        """See HubReport."""


def publish(hub: TopicHub, rows: Sequence[JournalRow]) -> None:
    """Rows that were committed, sorted by topic and seq. Never waits."""
    for topic, grouped in groupby(rows, key=lambda row: row.topic):
        hub.publish(topic, [(row.seq, row.payload) for row in grouped])
