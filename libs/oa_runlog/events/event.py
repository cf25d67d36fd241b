"""An event: what happened, with its place in the log."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from oa_runlog.events.codex import CodexEvent
from oa_runlog.events.run import (
    AttemptFailed,
    ChildFinished,
    ExecutorLost,
    InputReceived,
    RequestAnswered,
    RequestExpired,
    RunCancelRequested,
    RunCreated,
    RunFinished,
    RunStarted,
)
from oa_runlog.events.work import (
    CheckpointSaved,
    ChildStarted,
    Custom,
    Message,
    ProgressReported,
    RequestOpened,
    StepCompleted,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
    Verification,
)

SCHEMA_VERSION = 1
"""Version of the events that are written today."""
AUTHORITY = 0
"""Lease epoch of the events that the authority writes itself."""


class EventType(enum.StrEnum):
    """Names of the events, as used in logs, metrics, tables and error messages."""

    RUN_CREATED = "run.created"
    RUN_STARTED = "run.started"
    RUN_CANCEL_REQUESTED = "run.cancel_requested"
    RUN_FINISHED = "run.finished"
    EXECUTOR_LOST = "executor.lost"
    ATTEMPT_FAILED = "attempt.failed"
    INPUT_RECEIVED = "input.received"
    REQUEST_ANSWERED = "request.answered"
    REQUEST_EXPIRED = "request.expired"
    TEXT_DELTA = "text.delta"
    TOOL_CALL = "tool.call"
    TOOL_RESULT = "tool.result"
    MESSAGE = "message"
    VERIFICATION = "verification"
    USAGE = "usage"
    CODEX_EVENT = "codex.event"
    CUSTOM = "custom"
    STEP_COMPLETED = "step.completed"
    REQUEST_OPENED = "request.opened"
    CHILD_STARTED = "child.started"
    CHILD_FINISHED = "child.finished"
    CHECKPOINT_SAVED = "checkpoint.saved"
    PROGRESS_REPORTED = "progress.reported"


@dataclass(frozen=True, slots=True)
class Unknown:
    """What happened is of a kind that only a later release knows. Somebody who follows a run may get it; nobody writes
    it."""


EventBody = (
    RunCreated
    | RunStarted
    | RunCancelRequested
    | RunFinished
    | ExecutorLost
    | AttemptFailed
    | InputReceived
    | RequestAnswered
    | RequestExpired
    | TextDelta
    | ToolCall
    | ToolResult
    | Message
    | Verification
    | Usage
    | CodexEvent
    | Custom
    | StepCompleted
    | RequestOpened
    | ChildStarted
    | ChildFinished
    | CheckpointSaved
    | ProgressReported
    | Unknown
)
"""The body of an event: what happened, without its place in the log."""

_TYPES: Mapping[type[EventBody], EventType] = MappingProxyType(
    {
        RunCreated: EventType.RUN_CREATED,
        RunStarted: EventType.RUN_STARTED,
        RunCancelRequested: EventType.RUN_CANCEL_REQUESTED,
        RunFinished: EventType.RUN_FINISHED,
        ExecutorLost: EventType.EXECUTOR_LOST,
        AttemptFailed: EventType.ATTEMPT_FAILED,
        InputReceived: EventType.INPUT_RECEIVED,
        RequestAnswered: EventType.REQUEST_ANSWERED,
        RequestExpired: EventType.REQUEST_EXPIRED,
        TextDelta: EventType.TEXT_DELTA,
        ToolCall: EventType.TOOL_CALL,
        ToolResult: EventType.TOOL_RESULT,
        Message: EventType.MESSAGE,
        Verification: EventType.VERIFICATION,
        Usage: EventType.USAGE,
        CodexEvent: EventType.CODEX_EVENT,
        Custom: EventType.CUSTOM,
        StepCompleted: EventType.STEP_COMPLETED,
        RequestOpened: EventType.REQUEST_OPENED,
        ChildStarted: EventType.CHILD_STARTED,
        ChildFinished: EventType.CHILD_FINISHED,
        CheckpointSaved: EventType.CHECKPOINT_SAVED,
        ProgressReported: EventType.PROGRESS_REPORTED,
    }
)


def event_type(body: EventBody) -> EventType:
    """The type of an event with this body, which is not Unknown."""
    return _TYPES[type(body)]


RESERVED = frozenset(
    {
        EventType.RUN_CREATED,
        EventType.RUN_STARTED,
        EventType.RUN_CANCEL_REQUESTED,
        EventType.EXECUTOR_LOST,
        EventType.ATTEMPT_FAILED,
        EventType.INPUT_RECEIVED,
        EventType.REQUEST_ANSWERED,
        EventType.REQUEST_EXPIRED,
        EventType.CHILD_STARTED,
        EventType.CHILD_FINISHED,
    }
)
"""The events that only the authority may append."""


class RunEvent(NamedTuple):
    """One element of a run's log. `lease_epoch` is 0 when the authority wrote it."""

    run_id: str
    seq: int
    recorded_ns: int
    lease_epoch: int
    body: EventBody

    @property
    def type(self) -> str:
        """The event's EventType, or "unknown"."""
        return "unknown" if isinstance(self.body, Unknown) else event_type(self.body)
