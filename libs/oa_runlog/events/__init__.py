"""The elements of a run's log, as plain values.

The names and rules are those of proto/openagents/runtime/v1/event.proto; `oa_runlog.wire` maps between the two. Times
are integers: nanoseconds since the Unix epoch, UTC.

- `event`: an event. `run`, `work`, `codex`: the bodies of events.
- `specs`: what a run executes. `titles`: the title of a run without one. `json_values`: JSON in events.

Callers import from here. The modules are for each other.
"""

from oa_runlog.events.codex import (
    CodexEvent,
    CodexItem,
    CodexKind,
    ControlOutcome,
    ControlReceipt,
    ControlRequest,
    TurnStatus,
    TurnStatusChanged,
)
from oa_runlog.events.event import AUTHORITY, RESERVED, SCHEMA_VERSION, EventBody, EventType, RunEvent, event_type
from oa_runlog.events.json_values import Json, JsonObject
from oa_runlog.events.run import (
    AttemptFailed,
    ChildFinished,
    ExecResult,
    ExecutorLost,
    InputReceived,
    Outcome,
    RequestAnswered,
    RequestExpired,
    RunCancelRequested,
    RunCreated,
    RunFinished,
    RunStarted,
)
from oa_runlog.events.specs import (
    AT_ONCE,
    DEFAULT_RETENTION_CLASS,
    AgentSpec,
    Concurrency,
    ExecSpec,
    PromptSpec,
    QueuePolicy,
    RetryPolicy,
    RunSpec,
    Terminal,
    ThreadPolicy,
)
from oa_runlog.events.titles import titled
from oa_runlog.events.work import (
    CheckpointSaved,
    ChildStarted,
    Custom,
    Message,
    MessageRole,
    ProgressReported,
    RequestKind,
    RequestOpened,
    RequestOption,
    StepCompleted,
    TextDelta,
    TextStream,
    ToolCall,
    ToolResult,
    Usage,
    Verification,
)

__all__ = [
    "AT_ONCE",
    "AUTHORITY",
    "DEFAULT_RETENTION_CLASS",
    "RESERVED",
    "SCHEMA_VERSION",
    "AgentSpec",
    "AttemptFailed",
    "CheckpointSaved",
    "ChildFinished",
    "ChildStarted",
    "CodexEvent",
    "CodexItem",
    "CodexKind",
    "Concurrency",
    "ControlOutcome",
    "ControlReceipt",
    "ControlRequest",
    "Custom",
    "EventBody",
    "EventType",
    "ExecResult",
    "ExecSpec",
    "ExecutorLost",
    "InputReceived",
    "Json",
    "JsonObject",
    "Message",
    "MessageRole",
    "Outcome",
    "ProgressReported",
    "PromptSpec",
    "QueuePolicy",
    "RequestAnswered",
    "RequestExpired",
    "RequestKind",
    "RequestOpened",
    "RequestOption",
    "RetryPolicy",
    "RunCancelRequested",
    "RunCreated",
    "RunEvent",
    "RunFinished",
    "RunSpec",
    "RunStarted",
    "StepCompleted",
    "Terminal",
    "TextDelta",
    "TextStream",
    "ThreadPolicy",
    "ToolCall",
    "ToolResult",
    "TurnStatus",
    "TurnStatusChanged",
    "Usage",
    "Verification",
    "event_type",
    "titled",
]
