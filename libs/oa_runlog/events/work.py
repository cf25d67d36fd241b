"""Events that happen in a run: the work of its worker."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from oa_runlog.events.json_values import Json, JsonObject


class TextStream(enum.StrEnum):
    """Where text came from."""

    STDOUT = "stdout"
    STDERR = "stderr"
    ASSISTANT = "assistant"
    REASONING = "reasoning"


class MessageRole(enum.StrEnum):
    """The author of a message."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of output, exactly as it was written; it need not consist of whole characters."""

    stream: TextStream
    data: bytes


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The agent called a tool. `arguments` is None when it gave none."""

    call_id: str
    name: str
    arguments: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool answered. `has_result` distinguishes an answer of null from no answer."""

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
    """Tokens used since the last Usage."""

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StepCompleted:
    """A step of an agent is done. `fingerprint`: 32 bytes over its arguments. `result_json`: one JSON text.

    `has_branches`: whether several tasks of the agent's function ask for things, as far as the worker knew.
    """

    ordinal: int
    name: str
    fingerprint: bytes
    result_json: str
    has_branches: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """An agent saved how far it has come. `state_json`: one JSON text; the run's newest one counts."""

    number: int
    state_json: str


@dataclass(frozen=True, slots=True)
class ProgressReported:
    """How far a run has come, for people. `done` and `total` are in the agent's units; None if it does not count."""

    text: str
    done: int | None = None
    total: int | None = None


class RequestKind(enum.StrEnum):
    """What a request asks for."""

    APPROVAL = "approval"
    CHOICE = "choice"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class RequestOption:
    """One of the options of a choice; people see the label, or the id if there is no label."""

    id: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class RequestOpened:
    """The run asks a person. `deadline_ns` None: the request stays open for as long as the run lasts.

    `has_branches`: as in StepCompleted.
    """

    request_id: str
    kind: RequestKind
    title: str
    detail: str = ""
    options: tuple[RequestOption, ...] = ()
    default_option: str = ""
    deadline_ns: int | None = None
    has_branches: bool = False

    @property
    def choices(self) -> tuple[str, ...]:
        """The options that may be chosen; none for a text."""
        if self.kind is RequestKind.APPROVAL:
            return ("yes", "no")
        return tuple(option.id for option in self.options)


@dataclass(frozen=True, slots=True)
class Custom:
    """An event of the worker's own type, for example "acme.progress"."""

    type: str
    data: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """The run has started another run. Authority. `child_id`: the child's number in the run, the same after a takeover.

    `input_sha256`: that of the JSON text of its input; empty in events that an older authority wrote, and for a child
    without one. `has_branches`: as in StepCompleted.
    """

    child_id: str
    run_id: str
    adapter: str
    input_sha256: bytes = b""
    has_branches: bool = False
