"""What a run executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A command, run without a shell. `timeout_ms` 0 is no limit. `stdin`: the run's inputs are its standard input."""

    argv: tuple[str, ...]
    working_directory: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout_ms: int = 0
    stdin: bool = False


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """A prompt."""

    text: str


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The input of an agent: one JSON text."""

    input_json: str


DEFAULT_RETENTION_CLASS = "default"
"""The class of retention of a run that names none."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run executes. An empty title is filled in when the run is created."""

    adapter: str
    input: ExecSpec | PromptSpec | AgentSpec
    title: str = ""
    thread_id: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    retention_class: str = ""
    """As it was asked for, and recorded so: `retention` is what it means."""

    @property
    def retention(self) -> str:
        """The class of retention that the run has."""
        return self.retention_class or DEFAULT_RETENTION_CLASS
