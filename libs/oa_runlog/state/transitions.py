"""The state machine of a run, as a table. A transition that is not in the table is invalid."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from oa_runlog.events import EventBody, EventType, Outcome, RunFinished, event_type
from oa_runlog.state.run import RunStatus

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
