"""Where runs and workers stand."""

from __future__ import annotations

from dataclasses import dataclass

from oa_runlog.state import WorkerStatus


@dataclass(frozen=True, slots=True)
class RunStanding:
    """Where a run's events stand, and whose it is. `floor`: as in RunRecord."""

    run_id: str
    user_id: str
    org_id: str
    latest_seq: int
    floor: int


@dataclass(frozen=True, slots=True)
class WorkerStanding:
    """Where a worker's events stand, and which org it is of. One that nothing was recorded of has head 0."""

    worker_id: str
    org_id: str
    head: int
    floor: int


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """`openagents.runtime.v1.WorkerEvent`. `recorded_ns` is nanoseconds since the Unix epoch."""

    worker_id: str
    seq: int
    recorded_ns: int
    status: WorkerStatus
    name: str
    adapters: tuple[str, ...]
    max_concurrent_runs: int
