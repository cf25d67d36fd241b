"""What a run executes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Terminal:
    """A command's pseudo terminal: its width in characters and its height in lines, 1 to 1000 each."""

    columns: int = 80
    rows: int = 24


def _reduced(spec: ExecSpec | RunSpec) -> tuple[object, ...]:
    """Return what makes the spec again, for pickle and deepcopy, which refuse a mapping that nobody can change."""
    values = (getattr(spec, each.name) for each in fields(spec))
    return type(spec), tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values)


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A command, run without a shell. `timeout_ms` 0 is no limit. `stdin`: the run's inputs are its standard input.

    With a `terminal`, the terminal is its standard input, output and error; without one they are pipes.
    """

    argv: tuple[str, ...]
    working_directory: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout_ms: int = 0
    stdin: bool = False
    terminal: Terminal | None = None

    __reduce__ = _reduced


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """A prompt."""

    text: str


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The input of an agent: one JSON text."""

    input_json: str


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many of an org's runs with the key may run at a time."""

    key: str
    limit: int


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a run that a worker ended as failed is tried again: see `oa_runlog.authority.retries`.

    `max_failures` includes the last failure. Pauses are in milliseconds; `max_delay_ms` 0 is one day. Without
    `reasons`, the policy covers all reasons that another attempt may overcome.
    """

    max_failures: int
    initial_delay_ms: int = 0
    max_delay_ms: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """When a run is given to a worker, how long it may take, and whether it is tried again.

    A higher `priority` goes first. `not_before_ns` is a time; a timeout of 0 milliseconds is no limit.
    """

    priority: int = 0
    not_before_ns: int | None = None
    start_timeout_ms: int = 0
    run_timeout_ms: int = 0
    concurrency: Concurrency | None = None
    retry: RetryPolicy | None = None


class ThreadPolicy(enum.StrEnum):
    """What happens to a run when another run of its thread has not ended. Without a policy they run side by side."""

    REJECT = "reject"
    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"


AT_ONCE = QueuePolicy()
"""The policy of a run that states none: it starts at once, has no limit, and is not tried again."""

DEFAULT_RETENTION_CLASS = "default"
"""The retention class of a run that names none."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run executes. An empty title is filled in when the run is created."""

    adapter: str
    input: ExecSpec | PromptSpec | AgentSpec
    title: str = ""
    thread_id: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    retention_class: str = ""
    """The class as it was requested, recorded unchanged: `retention` is its meaning."""
    queue: QueuePolicy = AT_ONCE
    thread_policy: ThreadPolicy | None = None

    __reduce__ = _reduced

    @property
    def retention(self) -> str:
        """The run's retention class."""
        return self.retention_class or DEFAULT_RETENTION_CLASS
