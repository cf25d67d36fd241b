"""The state machines of a run and of a worker, as tables. A transition that is not in a table is invalid."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from oa_runlog.events import EventBody, EventType, Outcome, RunFinished, event_type
from oa_runlog.state import RunStatus, WorkerStatus

FINISHED = {outcome: f"{EventType.RUN_FINISHED}:{outcome}" for outcome in Outcome}
"""The finish is three triggers, one for each outcome: "run.finished:succeeded", …"""

TRIGGERS: tuple[str, ...] = (
    *(str(kind) for kind in EventType if kind is not EventType.RUN_FINISHED),
    *FINISHED.values(),
)
"""All triggers that a run's table may be asked about."""

_WORK = (
    EventType.TEXT_DELTA,
    EventType.TOOL_CALL,
    EventType.TOOL_RESULT,
    EventType.MESSAGE,
    EventType.VERIFICATION,
    EventType.USAGE,
    EventType.CODEX_EVENT,
    EventType.CUSTOM,
    EventType.STEP_COMPLETED,
    EventType.REQUEST_OPENED,
    EventType.CHECKPOINT_SAVED,
    EventType.PROGRESS_REPORTED,
)

_CREATED, _RUNNING, _CANCELING = RunStatus.CREATED, RunStatus.RUNNING, RunStatus.CANCELING

RUN_TRANSITIONS: Mapping[tuple[RunStatus | None, str], RunStatus] = MappingProxyType(
    {
        (None, EventType.RUN_CREATED): _CREATED,
        (_CREATED, EventType.RUN_STARTED): _RUNNING,
        (_CREATED, EventType.RUN_CANCEL_REQUESTED): _CANCELING,
        (_CREATED, EventType.INPUT_RECEIVED): _CREATED,
        # Nobody started it in time.
        (_CREATED, FINISHED[Outcome.FAILED]): RunStatus.FAILED,
        # Started again after an executor was lost, or an attempt failed.
        (_RUNNING, EventType.RUN_STARTED): _RUNNING,
        (_RUNNING, EventType.RUN_CANCEL_REQUESTED): _CANCELING,
        (_RUNNING, EventType.EXECUTOR_LOST): _RUNNING,
        (_RUNNING, EventType.ATTEMPT_FAILED): _RUNNING,
        (_RUNNING, EventType.INPUT_RECEIVED): _RUNNING,
        (_RUNNING, EventType.REQUEST_ANSWERED): _RUNNING,
        (_RUNNING, EventType.REQUEST_EXPIRED): _RUNNING,
        (_RUNNING, EventType.CHILD_STARTED): _RUNNING,
        (_RUNNING, EventType.CHILD_FINISHED): _RUNNING,
        (_RUNNING, FINISHED[Outcome.SUCCEEDED]): RunStatus.SUCCEEDED,
        (_RUNNING, FINISHED[Outcome.FAILED]): RunStatus.FAILED,
        (_CANCELING, EventType.EXECUTOR_LOST): _CANCELING,
        # A finish that was on its way when the cancel was requested keeps its outcome.
        (_CANCELING, FINISHED[Outcome.SUCCEEDED]): RunStatus.SUCCEEDED,
        (_CANCELING, FINISHED[Outcome.FAILED]): RunStatus.FAILED,
        (_CANCELING, FINISHED[Outcome.CANCELED]): RunStatus.CANCELED,
        **{(_RUNNING, str(work)): _RUNNING for work in _WORK},
        **{(_CANCELING, str(work)): _CANCELING for work in _WORK},
    }
)
"""Status and trigger -> the next status. None is the status of a run that does not exist."""


def trigger(body: EventBody) -> str:
    """Return the trigger of `body` in the run's table: its type, and for the finish also its outcome."""
    if isinstance(body, RunFinished):
        return FINISHED[body.outcome]
    return event_type(body)


def next_status(status: RunStatus | None, body: EventBody) -> RunStatus | None:
    """The status after `body`, None when the table does not allow it. A run that does not exist has status None."""
    return RUN_TRANSITIONS.get((status, trigger(body)))


def allowed_triggers(status: RunStatus | None) -> tuple[str, ...]:
    """Return the triggers that a run in `status` allows, in the order of the table."""
    return tuple(what for (before, what) in RUN_TRANSITIONS if before is status)


class WorkerTrigger(enum.StrEnum):
    """What happens to a worker."""

    ATTACH = "attach"
    HEARTBEAT = "heartbeat"
    DRAIN = "drain"
    GOODBYE = "goodbye"
    SILENCE = "silence"


_STARTING, _WORKING, _DRAINING = WorkerStatus.STARTING, WorkerStatus.RUNNING, WorkerStatus.DRAINING

WORKER_TRANSITIONS: Mapping[tuple[WorkerStatus | None, WorkerTrigger], WorkerStatus] = MappingProxyType(
    {
        (None, WorkerTrigger.ATTACH): _STARTING,
        (_STARTING, WorkerTrigger.ATTACH): _STARTING,
        (_STARTING, WorkerTrigger.HEARTBEAT): _WORKING,
        (_STARTING, WorkerTrigger.DRAIN): _DRAINING,
        (_STARTING, WorkerTrigger.GOODBYE): WorkerStatus.STOPPED,
        (_STARTING, WorkerTrigger.SILENCE): WorkerStatus.LOST,
        # Reconnected to another replica, or to the same one before its silence was noticed.
        (_WORKING, WorkerTrigger.ATTACH): _STARTING,
        (_WORKING, WorkerTrigger.HEARTBEAT): _WORKING,
        (_WORKING, WorkerTrigger.DRAIN): _DRAINING,
        (_WORKING, WorkerTrigger.GOODBYE): WorkerStatus.STOPPED,
        (_WORKING, WorkerTrigger.SILENCE): WorkerStatus.LOST,
        (_DRAINING, WorkerTrigger.ATTACH): _STARTING,
        (_DRAINING, WorkerTrigger.HEARTBEAT): _DRAINING,
        (_DRAINING, WorkerTrigger.DRAIN): _DRAINING,
        (_DRAINING, WorkerTrigger.GOODBYE): WorkerStatus.STOPPED,
        (_DRAINING, WorkerTrigger.SILENCE): WorkerStatus.LOST,
        # A process that comes back after all: its leases are gone, but it may take new ones.
        (WorkerStatus.LOST, WorkerTrigger.ATTACH): _STARTING,
        (WorkerStatus.STOPPED, WorkerTrigger.ATTACH): _STARTING,
    }
)
"""Status and trigger -> the next status. None is the status of a worker that was never seen."""


def next_worker_status(status: WorkerStatus | None, what: WorkerTrigger) -> WorkerStatus | None:
    """Return the worker's status after `what`, None when the table does not allow it."""
    return WORKER_TRANSITIONS.get((status, what))
