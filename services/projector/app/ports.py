"""What the use cases need from outside: values and Protocols. `store` and `grpc_api` implement them.

Everything here may raise Refusal `unavailable` or `deadline_exceeded` when runtime or the database is away: then
nothing is known about what was asked for, and the way on is to ask again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from oa_runlog.state import RunStatus
from services.projector.domain.log import LogBatch
from services.projector.domain.run_summary import RunSummary
from services.projector.domain.summaries import Drift, JournalEntry, StoredSummary, SummaryWrite


class CheckpointMoved(Exception):
    """The checkpoint is not where the batch starts: somebody else applied it. Read the checkpoints again."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a projection has come in one partition: `position` is the last entry applied."""

    projection: str
    version: int
    partition: int
    log_epoch: str
    position: int


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One element of a topic; `payload` is a serialized RunSummary."""

    topic: str
    seq: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class TopicPosition:
    """Where a topic stands. A topic that nothing was written to has head 0 and floor 0."""

    floor: int
    head: int


NOWHERE = TopicPosition(0, 0)


@dataclass(frozen=True, slots=True)
class LogState:
    """Where runtime's log stands: its lineage, and partition -> newest position."""

    epoch: str
    heads: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class SummaryQuery:
    """Runs of an org, newest first, below the run id `before` when it is set; `user_id` and `status` narrow it."""

    org_id: str
    user_id: str | None
    status: RunStatus | None
    before: str
    limit: int


class LogSource(Protocol):
    """runtime's LogService."""

    async def describe(self) -> LogState:
        """Where the log stands. Raises Refusal."""

    def tail(self, epoch: str, after: Mapping[int, int]) -> AsyncIterator[LogBatch]:
        """Everything after the positions, without end. Raises Refusal, LogRefused."""


class Transaction(Protocol):
    """One batch's transaction: either all of it is stored, or none."""

    async def advance(self, old: Checkpoint, position: int) -> None:
        """Move the checkpoint from `old`, and keep others out until the end. Raises CheckpointMoved."""

    async def read(self, run_ids: Collection[str]) -> dict[str, StoredSummary]:
        """The stored summaries of these runs, as far as there are any."""

    async def write(self, writes: Sequence[SummaryWrite]) -> None:
        """Store summaries."""

    async def record(self, drifts: Sequence[Drift]) -> None:
        """Store what was found to differ."""

    async def append(self, entries: Sequence[JournalEntry]) -> list[JournalRow]:
        """Append to topics and give each entry its seq; sorted by topic and seq."""


class ProjectionStore(Protocol):
    """Read models and checkpoints of one version of the projection."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction; commits when the block ends, unless it raises. Raises Refusal."""

    async def checkpoints(self, log_epoch: str, partitions: Collection[int]) -> dict[int, Checkpoint]:
        """The checkpoint of each partition, made at position 0 where there is none. Raises Refusal."""


class JournalStore(Protocol):
    """The topics' journals."""

    async def epoch(self) -> str:
        """Lineage of all journal topics."""

    async def positions(self, topics: Collection[str]) -> dict[str, TopicPosition]:
        """Where the topics stand; those without a row are left out."""

    async def page(self, topic: str, after_seq: int, limit: int) -> list[JournalRow]:
        """At most `limit` rows after `after_seq`, in order."""


class ReadStore(Protocol):
    """The read models, for readers."""

    async def summary(self, run_id: str) -> RunSummary | None:
        """The run's summary."""

    async def summaries(self, query: SummaryQuery) -> list[RunSummary]:
        """A page of summaries."""

    async def all_checkpoints(self) -> list[Checkpoint]:
        """Every checkpoint of every projection."""
