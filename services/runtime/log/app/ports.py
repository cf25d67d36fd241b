"""The interface between the log and its store, and the parts of the log that others read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from oa_runlog.state import RunState
from services.runtime.authority.domain import Head
from services.runtime.log.domain.batch import Changes, Snapshot, Wanted
from services.runtime.log.domain.records import LogRecord, RunExcerpt, RunRecord
from services.runtime.log.domain.shares import Share


class LogTransaction(Protocol):
    """One transaction on some partitions, whose heads are locked."""

    heads: Mapping[int, Head]
    """The head of each of them."""

    async def read(self, wanted: Wanted) -> Snapshot:
        """Read the state on which the batch is decided."""
        ...

    async def counted(self, shares: Sequence[Share]) -> Mapping[Share, int]:
        """Return how many runs count in each share. Until the transaction ends, no other one makes any of them grow."""
        ...

    async def lenders(self, parents: Mapping[str, str]) -> Mapping[str, str]:
        """Return which of the runs to be given away, each with its parent, take a place that is already counted, and
        whose place that is. Called after the shares were counted."""
        ...

    async def store(self, changes: Changes, now_ns: int) -> None:
        """Store the batch."""
        ...


class LogSession(Protocol):
    """A connection that a sequencer keeps for as long as it lasts."""

    @property
    def is_open(self) -> bool:
        """Whether the connection is not known to be gone."""
        ...

    async def store(self, heads: Mapping[int, Head], runs: Collection[RunState], changes: Changes, now_ns: int) -> bool:
        """Store a batch that was decided on these heads and runs, in one statement.

        Returns False and stores nothing if a head or run has changed, by number or by chain, if a worker that gets a
        run is lost or stopped, if the receipts state another epoch than the log's, or if an idempotency key of the
        batch was used before.
        """
        ...

    def transaction(self, partitions: Collection[int]) -> AbstractAsyncContextManager[LogTransaction]:
        """Begin a transaction and lock the heads. It is committed on exit, or rolled back on an exception."""
        ...


class LogStore(Protocol):
    """Write access to the log."""

    def session(self) -> AbstractAsyncContextManager[LogSession]:
        """A connection. Raises Refusal unavailable."""
        ...


class LogPages(Protocol):
    """The whole log, by partition and position."""

    async def heads(self) -> dict[int, Head]:
        """Partition -> its head."""
        ...

    async def log_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[LogRecord]:
        """Consecutive entries after a position; empty at the head. Raises Refusal unavailable, archive_damaged."""
        ...

    async def bytes_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[bytes]:
        """Like `log_page`, but only the stored bytes, which is cheaper."""
        ...


class RunPages(Protocol):
    """The events of runs that are in the log."""

    async def run_page(self, run_id: str, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Consecutive events of a run: seq and stored bytes."""
        ...


class RunReader(Protocol):
    """Runs as the log has them."""

    async def run(self, run_id: str) -> RunRecord | None:
        """The run with this id."""
        ...


class RunExcerpts(Protocol):
    """Runs with the events that show how they stand."""

    async def excerpt(self, run_id: str) -> RunExcerpt | None:
        """A run as it is now."""
        ...


class RunEvents(RunReader, Protocol):
    """Runs, and events of those that are in the log."""

    async def events_of_types(
        self, run_id: str, after_seq: int, types: Sequence[str], max_events: int, max_bytes: int
    ) -> list[bytes]:
        """Events of a run after a seq, in order, as they are stored; of these types only, unless none is named."""
        ...

    async def newest_of_types(self, run_id: str, after_seq: int, types: Sequence[str]) -> bytes | None:
        """The newest event of a run after a seq, of these types only, unless none is named; None if there is none."""
        ...
