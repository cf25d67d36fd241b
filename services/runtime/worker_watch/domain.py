"""The state of a worker."""

from __future__ import annotations

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
