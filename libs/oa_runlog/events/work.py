"""What happens in a run: the work of its worker."""

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
    """Who speaks in a message."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


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
class StepCompleted:
    """A step of an agent is done. `fingerprint`: 32 bytes over its arguments. `result_json`: one JSON text."""

    ordinal: int
    name: str
    fingerprint: bytes
    result_json: str


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """An agent has saved where it is. `state_json`: one JSON text; the newest one of the run counts."""

    number: int
    state_json: str


@dataclass(frozen=True, slots=True)
class ProgressReported:
    """How far a run is, for people. `done` and `total` are in units of the agent's own; None when it does not count."""

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
    """One of the options of a choice; people are shown the label, or the id without one."""

    id: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class RequestOpened:
    """The run asks a person. `deadline_ns` is None for as long as the run lasts."""

    request_id: str
    kind: RequestKind
    title: str
    detail: str = ""
    options: tuple[RequestOption, ...] = ()
    default_option: str = ""
    deadline_ns: int | None = None

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
    """The run has started another one. Authority. `child_id`: its number in the run, the same after a takeover.

    `input_sha256`: of its input's JSON text; empty in what an older authority wrote, and of a child without one.
    """

    child_id: str
    run_id: str
    adapter: str
    input_sha256: bytes = b""
