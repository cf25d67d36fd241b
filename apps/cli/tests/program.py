"""`oa` as a person starts it: a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oa_testing.fork_server import PYTHON
from oa_testing.stack import PATIENT_START, StackUnderTest

REPOSITORY = Path(__file__).resolve().parents[3]
TIMEOUT_S = 120.0
_OA = (PYTHON, "-m", "apps.cli")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def documents(self) -> list[Any]:
        """The JSON documents on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def error(self) -> Any:
        """The JSON error on stderr."""
        return json.loads(self.stderr)["error"]


class Program:
    """Runs `oa` with an environment of its own, below `home`."""

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OA_")}
        path = os.pathsep.join(str(REPOSITORY / part) for part in ("", "libs", "gen"))
        own = {"PYTHONPATH": path, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
        self._env = {**kept, **PATIENT_START, **own, "OA_HOME": str(home / "stack"), **(env or {})}
        self._home = home

    @classmethod
    def of_a_person(cls, home: Path, stack: StackUnderTest, env: Mapping[str, str] | None = None) -> Program:
        """For one of several people on a stack: each has their own files, not those beside the stack."""
        return cls(home, {**stack.env, "OA_CLIENT_HOME": str(home / "client"), **(env or {})})

    async def __call__(self, *arguments: str, text: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Run a command to its end."""
        async with self.started(*arguments, env=env) as process:
            async with asyncio.timeout(TIMEOUT_S):
                stdout, stderr = await process.communicate(text.encode())
        assert process.returncode is not None
        assert b"Traceback" not in stderr, stderr.decode()
        return Done(process.returncode, stdout, stderr.decode())

    async def in_shell(self, script: str, *arguments: str | bytes, env: Mapping[str, str] | None = None) -> Done:
        """Run a command as a line of bash has it: `"$@"` in `script` is the command."""
        async with self.started_in_shell(script, *arguments, env=env) as process:
            async with asyncio.timeout(TIMEOUT_S):
                stdout, stderr = await process.communicate()
        assert process.returncode is not None
        assert b"Traceback" not in stderr, stderr.decode()
        assert b"defect" not in stderr, stderr.decode()
        return Done(process.returncode, stdout, stderr.decode(errors="replace"))

    def started(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """A command that runs; killed at the end if it still does."""
        return self._run(*_OA, *arguments, env=env)

    def at_terminal(self, fd: int, *arguments: str) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """See `started`. All three of its files are this terminal."""
        return self._run(*_OA, *arguments, env=None, files=fd)

    def started_in_shell(
        self, script: str, *arguments: str | bytes, env: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """See `in_shell` and `started`."""
        return self._run("bash", "-c", script, "bash", *_OA, *arguments, env=env)

    @asynccontextmanager
    async def _run(
        self, *command: str | bytes, env: Mapping[str, str] | None, files: int = subprocess.PIPE
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._home,
            env={**self._env, **(env or {})},
            stdin=files,
            stdout=files,
            stderr=files,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
