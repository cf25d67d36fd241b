"""Events that happen to a run: it is created, started, canceled, lost and finished."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from oa_runlog.events.specs import RunSpec


class Outcome(enum.StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class RunCreated:
    """A run exists. Authority; first event of every run. `parent_run_id`: the run that started it, empty for none."""

    user_id: str
    org_id: str
    spec: RunSpec
    parent_run_id: str = ""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A worker has the lease. Authority. `attempt` counts from 1."""

    worker_id: str
    lease_epoch: int
    attempt: int


@dataclass(frozen=True, slots=True)
class RunCancelRequested:
    """Somebody asked for the run to end. Authority."""

    requested_by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """Measurements of the exec adapter. `exit_code` is None when a signal ended the command or it never ran."""

    exit_code: int | None = None
    signal: int = 0
    duration_ms: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0


@dataclass(frozen=True, slots=True)
class InputReceived:
    """Somebody sent an input to the run. `input_json`: one JSON text."""

    sent_by: str
    input_json: str


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """Somebody answered a request; the first answer counts."""

    request_id: str
    option: str
    text: str
    answered_by: str


@dataclass(frozen=True, slots=True)
class RequestExpired:
    """Nobody answered a request in time: its default counts."""

    request_id: str
    option: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended. Last event of every run; written by the worker, or by the authority when no worker can.

    `result_json` is what an agent returned: one JSON text, empty if there is none or the run did not succeed.
    """

    outcome: Outcome
    reason: str = ""
    message: str = ""
    exec: ExecResult | None = None
    result_json: str = ""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A worker ended the run as failed, and the run is tried again. Authority. No worker gets it before `retry_ns`."""

    worker_id: str
    lease_epoch: int
    attempt: int
    failure: RunFinished
    retry_ns: int


@dataclass(frozen=True, slots=True)
class ChildFinished:
    """A run that this one has started has ended. Authority."""

    run_id: str
    finish: RunFinished


@dataclass(frozen=True, slots=True)
class ExecutorLost:
    """The worker died or went silent. Authority. `requeued`: the run waits for another worker."""

    worker_id: str
    lease_epoch: int
    attempt: int
    requeued: bool
