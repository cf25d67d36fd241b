"""Where runs and workers stand. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oa_runlog import wire
from oa_runlog.events import RequestAnswered, RequestExpired, RequestOpened
from oa_runlog.state import RunStatus
from oa_runlog.workers import WorkerStatus


@dataclass(frozen=True, slots=True)
class RunStanding:
    """Where a run's events stand, and whose run it is. `floor` is as in RunRecord."""

    run_id: str
    user_id: str
    org_id: str
    latest_seq: int
    floor: int


@dataclass(frozen=True, slots=True)
class WorkerStanding:
    """Where a worker's events stand, and the org of the worker. A worker without recorded events has head 0."""

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


def open_requests(status: RunStatus, events: Sequence[bytes]) -> list[bytes]:
    """The stored events that opened the requests that none of `events` has settled, in the order of opening.

    `events` are the newest ones of a run's requests. The event that settles a request comes after the one that opened
    it, so it is among them. A run that has ended waits for nothing. If a request was opened twice, the first event
    counts.
    """
    waiting: dict[str, bytes] = {}
    settled: set[str] = set()
    for data in () if status.is_final else events:
        match wire.decode_event(data).body:
            case RequestOpened(request_id=request_id) if request_id not in settled:
                waiting.setdefault(request_id, data)
            case RequestAnswered(request_id=request_id) | RequestExpired(request_id=request_id):
                waiting.pop(request_id, None)
                settled.add(request_id)
    return list(waiting.values())
