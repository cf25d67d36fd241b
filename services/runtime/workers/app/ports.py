"""What the management of workers needs from the store. The database measures waiting times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from oa_platform.health.quarantine import Quarantine
from oa_runlog.events import RunSpec
from oa_runlog.workers import WorkerStatus
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
    """As stated in its hello; empty if the record was read from the store."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease."""

    run_id: str
    worker_id: str
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The findings of a look at workers."""

    replicas: Mapping[str, int]
    """Replica -> the number of looks in which it accepted workers."""
    signs: Sequence[SignOfLife]
    """Signs of life of the workers that are not lost or stopped."""
    left: Mapping[str, str]
    """Workers of this replica that are lost or have another attachment -> the attachment that they have here."""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """An installation's rules about which run is next.

    `pauses_ms`: the pause of a run after the loss of attempt 1, 2, …; the last pause applies to all further attempts.
    `max_running_per_…`: how many runs of an org and of a person workers may hold at a time, not counting ancestors of
    other held runs; 0 for any number.
    """

    pauses_ms: Sequence[int]
    max_running_per_org: int = 0
    max_running_per_person: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many runs whose time has come wait for a worker, and how many seconds the first of them has waited."""

    runs: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that a worker may get, its owner, and its spec."""

    run_id: str
    user_id: str
    spec: RunSpec


@dataclass(frozen=True, slots=True)
class Queue:
    """The runs that wait for a worker: the `runs` that it may get now, in order, and whether `others` also wait."""

    runs: Sequence[WaitingRun]
    others: bool


class WorkerStore(Protocol):
    """Workers and leases."""

    async def worker(self, worker_id: str) -> WorkerRecord | None:
        """The record of a worker."""
        ...

    async def remove_ended(self, after: str, kept_days: int, page: int) -> tuple[int, str | None]:
        """Look at the next `page` ended workers after an id, and remove those that hold no run and gave no sign of life
        for `kept_days`. Return how many were removed, and the id after which to go on; None at the end."""
        ...

    async def add_worker(self, worker: WorkerRecord, attachment: str) -> None:
        """Store a new worker."""
        ...

    async def reattach_worker(self, worker: WorkerRecord, before: WorkerStatus, attachment: str) -> bool:
        """Give the worker to another stream, if its status still is `before`."""
        ...

    async def move_worker(self, worker_id: str, attachment: str, status: WorkerStatus) -> bool:
        """Set the status and note a sign of life; False if the stream no longer speaks for the worker."""
        ...

    async def look(self, attached: Mapping[str, str], heard: Mapping[str, str], *, accepts: bool) -> Seen:
        """Look after workers: store which of them were `heard`, and read the state of all.

        `attached`: the workers of this replica -> their attachments. `heard`: those of them that were heard since the
        last look. `accepts`: whether this replica accepts workers now.
        """
        ...

    async def lose_workers(self, silent: Sequence[SignOfLife]) -> list[str]:
        """Mark as lost the workers that gave no further sign of life, and return their ids."""
        ...

    async def forget_replicas(self, absent: Mapping[str, int]) -> None:
        """Drop the replicas that have not looked again."""
        ...

    async def stop_workers_of(self, service_account_id: str) -> list[str]:
        """Stop the workers of an account, and return the ids of those that had not ended."""
        ...

    async def leases_of_ended_workers(self, limit: int, left_out: Sequence[str]) -> list[LeaseRecord]:
        """Leases whose workers are lost or stopped; without those of the runs that are left out."""
        ...

    async def leases_of(self, worker_id: str) -> list[LeaseRecord]:
        """The leases of a worker."""
        ...

    async def lease_holder(self, run_id: str, lease_epoch: int) -> tuple[str, str] | None:
        """The worker and the service account that got the lease, if it is the newest lease of the run."""
        ...

    async def canceling_runs(self) -> list[str]:
        """Runs whose workers were told to end them, the longest ago first."""
        ...

    async def waiting_runs(
        self,
        org_id: str,
        adapters: Sequence[str],
        limit: int,
        rules: QueueRules,
        marks: Mapping[str, int],
        broken: Quarantine,
    ) -> Queue:
        """The runs that wait for a worker of an org with these adapters; at most `limit` of those that may start now.
        `marks`: see `domain.turns`. `broken`: runs that are left out, and those whose rows can't be read."""
        ...

    async def waiting(self) -> Waiting:
        """The runs of all orgs that wait for a worker."""
        ...

    async def next_time_ms(self, within_ms: int) -> int | None:
        """Milliseconds until the next waiting run's time; None if no time comes within `within_ms`."""
        ...

    async def overdue_runs(self, limit: int, left_out: Sequence[str]) -> list[str]:
        """Runs whose start timeout or run timeout is over, the longest overdue first; without those left out."""
        ...
