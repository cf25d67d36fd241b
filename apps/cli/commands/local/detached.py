"""A stack that outlives the command that starts it: `oa up` as a process of its own, whose log is kept."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from oa_base.refusal import Refusal
from oa_localstack.installation.state import StackState, read_state
from oa_localstack.processes.child import TAIL_LINES
from oa_localstack.services import python_module
from oa_platform.process.signals import stop_signals
from oa_wire.strict.text import read_json

_POLL_S = 0.05


@dataclass(frozen=True)
class Detached:
    """A stack that is ready, and runs on without us."""

    pid: int
    urls: dict[str, str]
    log: Path


async def start_detached(home: Path, env: Mapping[str, str], *, forget_data: bool = False) -> Detached:
    """Start `oa up` for `home`, which is absolute, and return when its stack is ready.

    `oa up` limits its own start. If we are told to stop before it is ready, we stop it, too, and raise click's Abort.
    Raises the Refusal that ended it, with the last lines of its log.
    """
    log = home / "logs" / "oa.log"
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    offset = log.stat().st_size if log.exists() else 0
    process = _spawn(log, {**env, "OA_HOME": str(home)}, forget_data)
    task = asyncio.current_task()
    assert task is not None
    with stop_signals(lambda number: _cancel(task)):
        try:
            state = await _until_ready(home, process)
        except asyncio.CancelledError:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait)
            raise click.Abort from None
    if state is None:
        raise _refusal_of(log, offset, process.returncode)
    return Detached(process.pid, state.urls, log)


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


def _spawn(log: Path, env: Mapping[str, str], forget_data: bool) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, so that neither Ctrl-C nor the end of this terminal reaches it."""
    argv = [*python_module("openagents._oa"), "up", "--json", *(["--forget-data"] if forget_data else [])]
    log.touch(mode=0o600)
    with log.open("ab") as file:
        return subprocess.Popen(
            argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


async def _until_ready(home: Path, process: subprocess.Popen[bytes]) -> StackState | None:
    """Return the state of the process's stack once it is ready; None if the process ends before that."""
    while process.poll() is None:
        state = read_state(home)
        if state is not None and state.supervisor.pid == process.pid and state.phase == "ready":
            return state
        await asyncio.sleep(_POLL_S)
    return None


def _refusal_of(log: Path, offset: int, status: int) -> Refusal:
    """Return why it ended: its own refusal, which is a line of its log, and the lines before."""
    with log.open("rb") as file:
        file.seek(offset)
        lines = file.read().decode(errors="replace").splitlines()
    told = next((told for line in reversed(lines) if (told := _told_in(line))), None)
    shown = "\n".join(f"  {line}" for line in lines[-TAIL_LINES:] if _told_in(line) is None)
    tail = f"\nThe last lines of {log}:\n{shown}" if shown else ""
    if told is not None:
        return Refusal(told.reason, f"{told.message}{tail}", field=told.field)
    message = f"the stack ended with status {status} before it was ready; read its log {log}{tail}"
    return Refusal("start_failed", message)


def _told_in(line: str) -> Refusal | None:
    """Return the refusal that a line of the log holds; None if it holds none."""
    try:
        error = read_json(line)["error"]
        return Refusal(error["reason"], str(error["message"]), field=str(error["field"]))
    except (ValueError, KeyError, TypeError):
        return None
