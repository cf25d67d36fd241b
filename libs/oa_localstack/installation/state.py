"""The state file: how another shell finds a running stack, and how a new supervisor finds a dead one's remains."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from oa_localstack.files import replace
from oa_localstack.processes.child import send_signal
from oa_wire.strict.text import read_json

_CLOCK_SLACK_S = 0.5
_POLL_S = 0.01


@dataclass(frozen=True)
class ProcessMark:
    """A process and when it began, because the same number may belong to another process later."""

    pid: int
    started_at: float

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The mark of a running process; None when there is none."""
        import psutil  # loaded here, because there is no process to look at if no stack was started

        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else cls(pid, process.create_time())
        except psutil.Error:
            return None

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        now = ProcessMark.of(self.pid)
        return now is not None and abs(now.started_at - self.started_at) < _CLOCK_SLACK_S


@dataclass(frozen=True)
class StackState:
    """What a supervisor says about its stack. `phase`: starting or ready. Holds no secret."""

    supervisor: ProcessMark
    phase: str
    ports: dict[str, int] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    processes: dict[str, ProcessMark] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)

    def is_alive(self) -> bool:
        """Whether the supervisor that wrote this still runs; otherwise the file is stale."""
        return self.supervisor.is_alive()


def state_path(home: Path) -> Path:
    """Where the state of the stack in `home` is written."""
    return home / "stack.json"


def write_state(home: Path, state: StackState) -> None:
    """Replace the state file, whole or not at all."""
    replace(state_path(home), json.dumps(asdict(state), indent=2).encode())


def read_state(home: Path) -> StackState | None:
    """The last state of the stack in `home`; None when there was none, or the file is invalid."""
    try:
        raw: dict[str, Any] = read_json(state_path(home).read_bytes())
        raw["supervisor"] = ProcessMark(**raw["supervisor"])
        raw["processes"] = {name: ProcessMark(**mark) for name, mark in raw["processes"].items()}
        return StackState(**raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def remove_state(home: Path) -> None:
    """Remove the state file, because the stack is down."""
    state_path(home).unlink(missing_ok=True)


def end_strays(home: Path) -> None:
    """End the services that outlived a killed supervisor. Postgres clears its own leftovers.

    The state stays until another replaces it: workers wait for a stack that crashed, and leave one that was stopped.
    """
    state = read_state(home)
    strays = [mark for mark in state.processes.values() if mark.is_alive()] if state else []
    for mark in strays:
        send_signal(mark.pid, signal.SIGKILL)
    while any(mark.is_alive() for mark in strays):
        time.sleep(_POLL_S)
