"""Topics that the projector serves from the journal. A topic that nothing has been written to has head 0."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_khala.frames import TopicState
from oa_khala.topics import Source, Topic, TopicClass
from oa_platform.health.failures import note_survived, surviving
from oa_platform.telemetry.tracing import sampled_traceparent
from oa_topics.hub import TopicHub
from oa_topics.store import StateAt, TopicDescription
from oa_topics.watcher import Origin
from services.projector.journal.domain import (
    NOWHERE,
    DocumentSet,
    JournalEntry,
    JournalRow,
    Looked,
    RowMark,
    TopicPosition,
    snapshot_of,
)
from services.projector.journal.limits import (
    MAX_REMEMBERED_COMMITS,
    RETENTION,
    SWEEP_INTERVAL_S,
    SWEEP_PAUSE_S,
    SWEEP_TOPICS,
    Retention,
    SnapshotLimits,
)
from services.projector.journal.metrics import ROWS_PRUNED

_log = structlog.get_logger(__name__)


class JournalStore(Protocol):
    """The topics' journals, for watching and replaying. Raises Refusal when the database is away."""

    async def positions(self, topics: Collection[str]) -> dict[str, TopicPosition]:
        """Where the topics stand; topics without a row are left out."""

    async def page(self, topic: str, after_seq: int, limit: int) -> list[JournalRow]:
        """At most `limit` rows after `after_seq`, in order."""


class Documents(Protocol):
    """The documents that the topics of one class describe."""

    async def as_of_head(self, topic: Topic, limit: int) -> tuple[int, list[bytes]]:
        """The topic's head, and its newest documents at that head, at most `limit`, the newest first."""


class Prunable(Protocol):
    """The journals, for pruning. Raises Refusal when the database is away."""

    async def look(self, form: str, keep: Retention, limit: int, after: str) -> Looked:
        """Look at the next `limit` topics of `form` ("user:*:runs") after `after`, in the order of their names."""

    async def prune(self, topic: str, keep: Retention) -> int:
        """Raise the topic's floor to the rows that are kept and delete those below, both or neither. Returns the number
        of deleted rows."""


class JournalWriter(Protocol):
    """The journals in a batch's transaction."""

    async def append(self, entries: Sequence[JournalEntry]) -> list[JournalRow]:
        """Append to topics and give each entry its seq. Returns the rows, sorted by topic and seq."""

    async def begin_anew(self, topics: Collection[str]) -> None:
        """Make every cursor of topics stale, and remove what they hold: whoever follows one gets a snapshot."""


class JournalTopics:
    """`oa_topics.store.TopicStore`."""

    source: Source = "projector"

    def __init__(
        self,
        journal: JournalStore,
        epoch: Callable[[], str],
        documents: Mapping[TopicClass, Documents],
        encode: Callable[[DocumentSet], bytes],
        limits: SnapshotLimits | None = None,
    ) -> None:
        """`epoch` returns the current one, of all topics; `documents` has the classes that have snapshots, and `encode`
        makes a snapshot's payload."""
        self._journal = journal
        self._current_epoch = epoch
        self._documents = documents
        self._encode = encode
        self._limits = limits or SnapshotLimits()

    async def epoch(self) -> str:
        """See TopicStore. Reads on a new connection come after the lineage was confirmed on it."""
        return self._current_epoch()

    async def describe(self, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        """See TopicStore. The topic's name contains the owner."""
        epoch = self._current_epoch()
        positions = await self._journal.positions([str(topic) for topic in topics])
        found: dict[Topic, TopicDescription] = {}
        for topic in topics:
            position = positions.get(str(topic), NOWHERE)
            by_user = topic.topic_class.prefix == "user:"
            owner_user_id, owner_org_id = (topic.subject_id, "") if by_user else ("", topic.subject_id)
            has_snapshot = position.head > 0 and topic.topic_class in self._documents
            state = TopicState(epoch, position.floor, position.head, has_snapshot)
            found[topic] = TopicDescription(topic, state, owner_user_id, owner_org_id)
        return found

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        return [(row.seq, row.payload) for row in await self._journal.page(str(topic), after_seq, max_events)]

    async def snapshot(self, topic: Topic, max_bytes: int) -> StateAt | None:
        """See TopicStore."""
        documents = self._documents.get(topic.topic_class)
        if documents is None:
            return None
        limits = self._limits.within(max_bytes)
        head, newest = await documents.as_of_head(topic, limits.documents + 1)
        return StateAt(head, self._encode(snapshot_of(newest, limits)))

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore. Summaries have no chain."""
        return None

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        return Refusal("internal", f"the journal of {topic} has no seq {seq}; report it")


class Pruner:
    """Keeps the journals within their retention. Every replica may do it, any number of times."""

    def __init__(self, journal: Prunable, retention: Mapping[TopicClass, Retention] = RETENTION) -> None:
        self._journal = journal
        self._retention = retention

    async def run(self) -> None:
        """Prune periodically until canceled."""
        while True:
            with surviving(_log, "journals_not_pruned"):  # journals that are too long are read all the same
                await self.prune()
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def prune(self) -> None:
        """Prune the topics that are due. Raises Refusal when the database is away."""
        for topic_class, keep in self._retention.items():
            after: str | None = ""
            while after is not None:
                looked = await self._journal.look(topic_class.form, keep, SWEEP_TOPICS, after)
                for topic in looked.due:
                    ROWS_PRUNED.labels(topic_class.name).inc(await self._journal.prune(topic, keep))
                # By name, because those of the first page may be due again by now.
                after = looked.last
                if after is not None:
                    await asyncio.sleep(SWEEP_PAUSE_S)


class Unreported:
    """Implements `oa_topics.hub.HubReport` for a source that has no metrics for it."""

    def watching(self, difference: int) -> None:
        """See HubReport."""

    def dropped(self, frames: int) -> None:
        """See HubReport."""

    def failed(self, topic: str, error: Exception) -> None:
        """See HubReport."""
        note_survived(_log, "topic_not_read", error, topic=topic)


class Publication:
    """Publishes committed rows, and remembers the newest ones: the database must have them as long as the past lasts.

    Read `past` before the transaction that stores the rows.
    """

    def __init__(self, hub: TopicHub) -> None:
        self._hub = hub
        self._newest: deque[RowMark] = deque(maxlen=MAX_REMEMBERED_COMMITS)
        self.past = 0
        """Changes with the journal's epoch."""

    @property
    def newest(self) -> Sequence[RowMark]:
        """The last row of each of the newest commits."""
        return tuple(self._newest)

    def publish(self, rows: Sequence[JournalRow], past: int) -> None:
        """Publish rows, which are sorted by topic and seq, without waiting. If their commit is traced, its span is
        current. Rows of an earlier past are left out: if there are any in the present one, the hub finds them."""
        if not rows or past != self.past:
            return
        last = rows[-1]
        self._newest.append(RowMark(last.topic, last.seq, hashlib.sha256(last.payload).digest()))
        traceparent = sampled_traceparent()
        origin = Origin(traceparent=traceparent) if traceparent else None
        for topic, grouped in groupby(rows, key=lambda row: row.topic):
            self._hub.publish(topic, [(row.seq, row.payload) for row in grouped], origin)

    def restart(self) -> None:
        """Begin anew, because the journal has another past."""
        self.past += 1
        self._newest.clear()
        self._hub.restart()
