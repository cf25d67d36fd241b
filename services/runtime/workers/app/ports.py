"""What looking after workers needs from the store. Times of waiting are the database's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from oa_runlog.events import RunSpec
from oa_runlog.state import WorkerStatus
from services.runtime.agents.domain import Agent
from services.runtime.workers.domain.vigil import SignOfLife


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
    agents: tuple[Agent, ...] = ()
    """As it said in its hello; empty when it was read."""


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
    """Replica -> in how many looks it accepted workers."""
    signs: Sequence[SignOfLife]
    """Of the workers that are not lost or stopped."""
    left: Mapping[str, str]
    """Workers of this replica that are lost or have another attachment -> the attachment that they have here."""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What an installation says of who is next.

    `pauses_ms`: the pause of a run after the loss of attempt 1, 2, …; the last one is that of all further ones.
    `max_running_per_…`: how many runs of an org and of a person workers may hold at a time, without those above
    another one of them; 0 for any number.
    """

    pauses_ms: Sequence[int]
    max_running_per_org: int = 0
    max_running_per_person: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many runs wait for a worker whose time has come, and for how many seconds the first of them has waited."""

    runs: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that a worker may get, whose it is, and what it executes."""

    run_id: str
    user_id: str
    spec: RunSpec


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for a worker: the `runs` that it may get now, in their order, and whether `others` wait, too."""

    runs: Sequence[WaitingRun]
    others: bool


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

    async def look(self, attached: Mapping[str, str], heard: Mapping[str, str], *, accepts: bool) -> Seen:
        """Take part in looking after workers: store who was `heard`, and see how all are.

        `attached`: the workers of this replica -> their attachments; those that were `heard` since the last look are
        some of them. `accepts`: whether this replica accepts workers now.
        """
        ...

    async def lose_workers(self, silent: Sequence[SignOfLife]) -> list[str]:
        """Mark the workers lost that gave no further sign of life, and return their ids."""
        ...

    async def forget_replicas(self, absent: Mapping[str, int]) -> None:
        """Drop those that have not looked again."""
        ...

    async def stop_workers_of(self, service_account_id: str) -> list[str]:
        """Stop the workers of an account, and return the ids of those that had not ended."""
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
        self, org_id: str, adapters: Sequence[str], limit: int, rules: QueueRules, marks: Mapping[str, int]
    ) -> Queue:
        """What waits for a worker of an org with these adapters; of those that may go now, so many. `marks`: see
        `domain.turns`."""
        ...

    async def waiting(self) -> Waiting:
        """What waits, of all orgs."""
        ...

    async def next_time_ms(self, within_ms: int) -> int | None:
        """In how many milliseconds the time of a waiting run comes; None when none does within so many."""
        ...

    async def overdue_runs(self, limit: int) -> list[str]:
        """Runs whose start timeout or run timeout is over, the longest ago first."""
        ...
