"""What the use cases need from the store. Times of waiting are the database's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from oa_runlog.events import RunSpec
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.state import RunState, WorkerStatus
from services.runtime.domain.batch import Changes, Head, LogRecord, Snapshot, Wanted
from services.runtime.domain.vigil import SignOfLife


@dataclass(frozen=True, slots=True)
class Installation:
    """What was fixed when this installation was made."""

    partitions: int
    receipt_log: str
    """The name of its log of receipts."""


class LogTransaction(Protocol):
    """One transaction on some partitions, whose heads are locked."""

    heads: Mapping[int, Head]
    """The head of each of them."""

    async def read(self, wanted: Wanted) -> Snapshot:
        """What the batch is decided on."""
        ...

    async def store(self, changes: Changes, receipts: Sequence[SignedReceipt], now_ns: int) -> None:
        """Store the batch."""
        ...


class LogSession(Protocol):
    """A connection that a sequencer keeps for as long as it lasts."""

    @property
    def is_open(self) -> bool:
        """Whether the connection is not known to be gone."""
        ...

    async def store(self, heads: Mapping[int, Head], runs: Collection[RunState], changes: Changes, now_ns: int) -> bool:
        """Store a batch that was decided on these heads and runs, in one statement; it may not create or finish a run.

        False, and nothing is stored, if one of them is not what it was, by number or by chain, or if an idempotency
        key of the batch was used before.
        """
        ...

    def transaction(self, partitions: Collection[int]) -> AbstractAsyncContextManager[LogTransaction]:
        """Begin and lock the heads. Left without an exception it is committed, else rolled back."""
        ...


class LogStore(Protocol):
    """The log, written."""

    def session(self) -> AbstractAsyncContextManager[LogSession]:
        """A connection. Raises Refusal unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run with its spec."""

    state: RunState
    spec: RunSpec
    floor: int = 0
    """Lowest seq after which the run's events are in the log: its newest once they moved to the archive."""


class LogPages(Protocol):
    """The log by partition and position, whole."""

    async def heads(self) -> dict[int, Head]:
        """Partition -> its head."""
        ...

    async def log_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[LogRecord]:
        """Consecutive entries after a position; empty at the head. Raises Refusal unavailable, archive_damaged."""
        ...

    async def bytes_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[bytes]:
        """The same, the stored bytes alone, which is cheaper."""
        ...


@dataclass(frozen=True, slots=True)
class RunStanding:
    """Where a run's events stand, and whose it is. `floor`: as in RunRecord."""

    run_id: str
    user_id: str
    org_id: str
    latest_seq: int
    floor: int


class RunEvents(Protocol):
    """The events of runs, for who follows them."""

    async def standings(self, run_ids: Sequence[str]) -> list[RunStanding]:
        """Where these runs stand; those that don't exist are left out."""
        ...

    async def run_page(self, run_id: str, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Consecutive events of a run: seq and stored bytes."""
        ...

    async def chain_at(self, run_id: str, seq: int) -> bytes | None:
        """The chain value at an event of a run; None when it is not in the log, and is not the newest one."""
        ...


class LogReader(Protocol):
    """What the log has of runs, read."""

    async def run_page(self, run_id: str, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Consecutive events of a run: seq and stored bytes."""
        ...

    async def run(self, run_id: str) -> RunRecord | None:
        """A run."""
        ...

    async def receipt(self, run_id: str) -> SignedReceipt | None:
        """The receipt of a run."""
        ...

    async def receipt_keys(self) -> list[tuple[str, bytes]]:
        """Key ids and public keys, the newest first."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker."""

    worker_id: str
    service_account_id: str
    org_id: str
    name: str
    adapters: tuple[str, ...]
    max_concurrent_runs: int
    status: WorkerStatus


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease."""

    run_id: str
    worker_id: str
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look after workers finds."""

    replicas: Mapping[str, int]
    """Replica -> how often it has looked."""
    signs: Sequence[SignOfLife]
    """Of the workers that are not lost or stopped."""
    lost: Mapping[str, str]
    """Workers of this replica that are lost -> the attachment that they had."""


class WorkerStore(Protocol):
    """Workers and leases."""

    async def worker(self, worker_id: str) -> WorkerRecord | None:
        """A worker."""
        ...

    async def add_worker(self, worker: WorkerRecord, attachment: str) -> None:
        """Store a new worker."""
        ...

    async def reattach_worker(self, worker: WorkerRecord, before: WorkerStatus, attachment: str) -> bool:
        """Give the worker to another stream, if it still is in `before`."""
        ...

    async def move_worker(self, worker_id: str, attachment: str, status: WorkerStatus) -> bool:
        """Set the status and note a sign of life; False when the stream does not speak for the worker any more."""
        ...

    async def look(self, attached: Sequence[str]) -> Seen:
        """Take part in looking after workers. `attached`: those of this replica."""
        ...

    async def lose_workers(self, silent: Sequence[SignOfLife]) -> list[str]:
        """Mark the workers lost that gave no further sign of life, and return their ids."""
        ...

    async def forget_replicas(self, absent: Mapping[str, int]) -> None:
        """Drop those that have not looked again."""
        ...

    async def leases_of_ended_workers(self, limit: int) -> list[LeaseRecord]:
        """Leases whose workers are lost or stopped."""
        ...

    async def leases_of(self, worker_id: str) -> list[LeaseRecord]:
        """The leases of a worker."""
        ...

    async def lease_holder(self, run_id: str, lease_epoch: int) -> tuple[str, str] | None:
        """Worker and service account that got the lease, if it is the newest of the run."""
        ...

    async def canceling_runs(self) -> list[str]:
        """Runs whose workers were told to end them, the longest ago first."""
        ...

    async def waiting_runs(
        self, org_id: str, adapters: Sequence[str], pauses_ms: Sequence[int], limit: int
    ) -> list[str]:
        """Runs that wait for a worker and have had their pause, the oldest first."""
        ...
