"""What a run's log consists of, as plain values.

The words and rules are those of proto/openagents/runtime/v1/event.proto; `oa_runlog.wire` maps between both. Times are
integers of nanoseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

Json = None | bool | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""What a `google.protobuf.Value` can hold; every number is a float."""
JsonObject = Mapping[str, Json]

SCHEMA_VERSION = 1
"""Version of the events that are written today."""


class EventType(enum.StrEnum):
    """Names of the events, as they stand in logs, metrics, tables and error messages."""

    RUN_CREATED = "run.created"
    RUN_STARTED = "run.started"
    RUN_CANCEL_REQUESTED = "run.cancel_requested"
    RUN_FINISHED = "run.finished"
    EXECUTOR_LOST = "executor.lost"
    TEXT_DELTA = "text.delta"
    TOOL_CALL = "tool.call"
    TOOL_RESULT = "tool.result"
    MESSAGE = "message"
    VERIFICATION = "verification"
    USAGE = "usage"
    CODEX_EVENT = "codex.event"
    CUSTOM = "custom"


class Outcome(enum.StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class TextStream(enum.StrEnum):
    """Where text came from."""

    STDOUT = "stdout"
    STDERR = "stderr"
    ASSISTANT = "assistant"
    REASONING = "reasoning"


class MessageRole(enum.StrEnum):
    """Who speaks in a message."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


# ------------------------------------------------------------------------------------------------- what a run executes


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A command, run without a shell. `timeout_ms` 0 is no limit."""

    argv: tuple[str, ...]
    working_directory: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """A prompt."""

    text: str


DEFAULT_RETENTION_CLASS = "default"
"""The class of retention of a run that names none."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run executes. An empty title is filled in when the run is created."""

    adapter: str
    input: ExecSpec | PromptSpec
    title: str = ""
    thread_id: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    retention_class: str = ""
    """As it was asked for, and recorded so: `retention` is what it means."""

    @property
    def retention(self) -> str:
        """The class of retention that the run has."""
        return self.retention_class or DEFAULT_RETENTION_CLASS


# ------------------------------------------------------------------------------------------------- events of the run


@dataclass(frozen=True, slots=True)
class RunCreated:
    """A run exists. Authority; first event of every run."""

    user_id: str
    org_id: str
    spec: RunSpec


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
    """What the exec adapter measured. `exit_code` is None when a signal ended the command or it never ran."""

    exit_code: int | None = None
    signal: int = 0
    duration_ms: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended. Last event of every run; by the worker, or by the authority when no worker can."""

    outcome: Outcome
    reason: str = ""
    message: str = ""
    exec: ExecResult | None = None


@dataclass(frozen=True, slots=True)
class ExecutorLost:
    """The worker died or went silent. Authority. `requeued`: the run waits for another one."""

    worker_id: str
    lease_epoch: int
    attempt: int
    requeued: bool


# ------------------------------------------------------------------------------------------------- events of the work


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of output, exactly as it was written; it need not be whole characters."""

    stream: TextStream
    data: bytes


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The agent calls a tool. `arguments` is None when it gave none."""

    call_id: str
    name: str
    arguments: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool answered. `has_result` tells an answer of null from none."""

    call_id: str
    failed: bool = False
    result: Json = None
    has_result: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message."""

    role: MessageRole
    text: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a check that the run made of its own work."""

    name: str
    passed: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used since the last Usage."""

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Custom:
    """An event of the worker's own type, for example "acme.progress"."""

    type: str
    data: JsonObject | None = None


# ------------------------------------------------------------------------------------------------- Codex


class TurnStatus(enum.StrEnum):
    """Where a turn stands."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class ControlOutcome(enum.StrEnum):
    """Terminal state of a control request."""

    APPLIED = "applied"
    DECLINED = "declined"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class TurnStatusChanged:
    """A turn began or ended."""

    turn_id: str
    status: TurnStatus
    message: str = ""


@dataclass(frozen=True, slots=True)
class CodexItem:
    """An item of a turn, as the app-server sent it."""

    item_type: str
    turn_id: str = ""
    item_id: str = ""
    content: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """The app-server asks for a decision."""

    request_id: str
    action: str
    detail: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ControlReceipt:
    """What became of a control request."""

    request_id: str
    outcome: ControlOutcome
    message: str = ""


CodexKind = TurnStatusChanged | CodexItem | ControlRequest | ControlReceipt


@dataclass(frozen=True, slots=True)
class CodexEvent:
    """One report of a Codex worker."""

    kind: CodexKind
    codex_thread_id: str = ""


# ------------------------------------------------------------------------------------------------- all of them

EventBody = (
    RunCreated
    | RunStarted
    | RunCancelRequested
    | RunFinished
    | ExecutorLost
    | TextDelta
    | ToolCall
    | ToolResult
    | Message
    | Verification
    | Usage
    | CodexEvent
    | Custom
)

_TYPES: Mapping[type[EventBody], EventType] = MappingProxyType(
    {
        RunCreated: EventType.RUN_CREATED,
        RunStarted: EventType.RUN_STARTED,
        RunCancelRequested: EventType.RUN_CANCEL_REQUESTED,
        RunFinished: EventType.RUN_FINISHED,
        ExecutorLost: EventType.EXECUTOR_LOST,
        TextDelta: EventType.TEXT_DELTA,
        ToolCall: EventType.TOOL_CALL,
        ToolResult: EventType.TOOL_RESULT,
        Message: EventType.MESSAGE,
        Verification: EventType.VERIFICATION,
        Usage: EventType.USAGE,
        CodexEvent: EventType.CODEX_EVENT,
        Custom: EventType.CUSTOM,
    }
)


def event_type(body: EventBody) -> EventType:
    """The type of what happened."""
    return _TYPES[type(body)]


RESERVED = frozenset(
    {EventType.RUN_CREATED, EventType.RUN_STARTED, EventType.RUN_CANCEL_REQUESTED, EventType.EXECUTOR_LOST}
)
"""What only the authority may append."""


class RunEvent(NamedTuple):
    """One element of a run's log. `lease_epoch` is 0 when the authority wrote it."""

    run_id: str
    seq: int
    recorded_ns: int
    lease_epoch: int
    body: EventBody

    @property
    def type(self) -> EventType:
        """The type of what happened."""
        return event_type(self.body)
