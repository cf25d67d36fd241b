"""The state of a worker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from oa_runlog.workers import WorkerStatus


@dataclass(frozen=True, slots=True)
class StandingWorker:
    """The state of a worker, and the runs that it holds, sorted. `attached_ns` is nanoseconds since the Unix epoch."""

    worker_id: str
    service_account_id: str
    org_id: str
    name: str
    adapters: tuple[str, ...]
    max_concurrent_runs: int
    status: WorkerStatus
    attached_ns: int
    run_ids: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """Whether it is stopped or lost."""
        return self.status in (WorkerStatus.STOPPED, WorkerStatus.LOST)


def removed_workers(worker_ids: Iterable[str]) -> list[StandingWorker]:
    """Workers of which only the id is known, because they ended and were removed since."""
    return [
        StandingWorker(worker_id, "", "", "", (), 0, WorkerStatus.STOPPED, 0, ()) for worker_id in sorted(worker_ids)
    ]
