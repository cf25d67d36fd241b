"""One service of the stack as a child process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oa_base.refusal import Refusal
from oa_localstack.logtail import last_lines
from oa_localstack.probe import Answer, ask
from oa_localstack.spawn import spawn

LOG_LIMIT_BYTES = 16 * 1024 * 1024
"""A log larger than this moves aside (`.1`) when its service starts."""
_POLL_S = 0.02


def python_module(module: str) -> tuple[str, ...]:
    """The command that runs a module with our interpreter. -P: the current directory is no place to import from."""
    return (sys.executable, "-P", "-m", module)


@dataclass
class ServiceProcess:
    """A service's program with its environment, its log and its readiness."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log_path: Path
    ops_port: int
    stop_timeout_s: float
    """How long it may take to drain after SIGTERM before it is killed."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How it ended; negative: by that signal. None while it runs or before its start."""
        return self._process.poll() if self._process else None

    async def start(self) -> None:
        """Start it, without waiting for readiness; nothing happens when it runs. See `spawn` for the thread rule."""
        if self.pid is not None:
            return
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            self._process = spawn(self.argv, env=self.env, log=log)

    async def until_ready(self, timeout_s: float) -> None:
        """Return when /readyz says so; raises Refusal(start_failed) when it ends or takes longer than `timeout_s`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        answer = Answer(0, "it was not asked")
        while True:
            if self.pid is None:
                raise self._failed(f"ended with status {self.exit_status} before it was ready")
            answer = await ask(self.ops_port)
            if answer.ready:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise self._failed(f"was not ready after {timeout_s:g} s (/readyz: {answer.status} {answer.body})")
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """SIGTERM, so that it drains; SIGKILL when it takes longer than it may."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + self.stop_timeout_s
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, and take its exit status."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _failed(self, what: str) -> Refusal:
        message = f"{self.name} {what}. Its log is {self.log_path}; the last lines:\n{last_lines(self.log_path)}"
        return Refusal("start_failed", message, metadata={"service": self.name})
