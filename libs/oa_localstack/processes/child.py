"""A child process that cannot outlive us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from oa_base.refusal import Refusal
from oa_localstack.processes.account import Account

TAIL_LINES = 20
_TAIL_BYTES = 16 * 1024
_POLL_S = 0.02


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: IO[bytes],
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `argv` (its program as an absolute path) as `account`, with both outputs written to `log`.

    On Linux, the kernel sends the child `death_signal` when the calling thread ends, so call this from a thread that
    lives as long as the child should: the main thread. On other systems, the next supervisor finds the children of a
    killed one. A session of its own keeps the terminal's Ctrl-C from reaching the child before its supervisor does.
    """
    return subprocess.Popen(
        (account or Account()).launched(argv, int(death_signal)),
        env=dict(env),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class Child(ABC):
    """A named program, with its log, that is started, stopped and started again."""

    name: str
    log_path: Path
    _process: subprocess.Popen[bytes] | None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How the process ended; if negative, by that signal. None while it runs or before its start."""
        return self._process.poll() if self._process else None

    @abstractmethod
    async def start(self) -> None:
        """Start it, from a thread that lives as long as it should (see `spawn`). Does nothing if it is running."""

    @abstractmethod
    async def stop(self) -> None:
        """Shut it down in order if it runs, by force when that takes too long."""

    def kill(self) -> None:
        """Send SIGKILL, and collect the exit status."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _end(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send one signal after the other, each with its number of seconds to be obeyed; SIGKILL comes last."""
        for number, patience_s in steps:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(self._process.wait, patience_s)
        self.kill()

    @abstractmethod
    async def _problem(self) -> str:
        """Return why it is not ready; empty when it is."""

    async def until_ready(self, timeout_s: float) -> None:
        """Return when it is ready. Raises Refusal(start_failed) when it ends or takes longer than `timeout_s`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            if self.pid is None:
                raise self._failed(f"ended with status {self.exit_status} before it was ready")
            if not (why := await self._problem()):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise self._failed(f"was not ready after {timeout_s:g} s ({why})")
            await asyncio.sleep(_POLL_S)

    def _failed(self, what: str) -> Refusal:
        message = (
            f"{self.name} {what}; read its log {self.log_path}, whose last lines are:\n{last_lines(self.log_path)}"
        )
        return Refusal("start_failed", message, metadata={"service": self.name})


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def last_lines(path: Path, count: int = TAIL_LINES) -> str:
    """The last `count` lines of a log, indented, or a note that nothing was logged."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        text = ""
    lines = text.splitlines()[-count:]
    return "\n".join(f"  {line}" for line in lines) or "  (nothing was logged)"
