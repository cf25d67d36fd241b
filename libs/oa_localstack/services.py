"""One service of the stack as a child process, and how it is asked whether it is ready."""

from __future__ import annotations

import asyncio
import http.client
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oa_localstack.installation.ports import HOST
from oa_localstack.processes.child import Child, spawn

PROBE_TIMEOUT_S = 2.0
_ANSWER_BYTES = 1024 * 1024


def python_module(module: str, interpreter: str = sys.executable) -> tuple[str, ...]:
    """The command that runs a module with our interpreter. -P: nothing is imported from the current directory."""
    return (interpreter, "-P", "-m", module)


@dataclass
class ServiceProcess(Child):
    """A service's program with its environment, its log and its readiness."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log_path: Path
    ops_port: int
    stop_timeout_s: float
    """How long it may take to drain after SIGTERM before it is killed."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    async def start(self) -> None:
        """Start the service, without waiting for readiness."""
        if self.pid is not None:
            return
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = spawn(self.argv, env=self.env, log=log)

    async def stop(self) -> None:
        """Send SIGTERM, so that the service drains; SIGKILL when that takes longer than `stop_timeout_s`."""
        await self._end((signal.SIGTERM, self.stop_timeout_s))

    async def _problem(self) -> str:
        answer = await ask(self.ops_port)
        return "" if answer.ready else f"/readyz: {answer.status} {answer.body}"


@dataclass(frozen=True)
class Answer:
    """The answer to a request; `status` is 0 when none came."""

    status: int
    body: str

    @property
    def ready(self) -> bool:
        """Whether the answer is yes."""
        return self.status == http.client.OK


async def ask(port: int, path: str = "/readyz", timeout_s: float = PROBE_TIMEOUT_S) -> Answer:
    """GET `path` from 127.0.0.1:`port`. Never raises, whatever the other side does."""
    return await asyncio.to_thread(_get, port, path, timeout_s)


def _get(port: int, path: str, timeout_s: float) -> Answer:
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read(_ANSWER_BYTES).decode(errors="replace").strip())
    except TimeoutError:
        return Answer(0, f"no answer within {timeout_s:g} s")
    except http.client.HTTPException:
        return Answer(0, "what answered does not speak HTTP")
    except OSError as error:
        return Answer(0, str(error))
    finally:
        connection.close()
