"""What a demo needs: a stack (its own, or one that runs already) and a worker process."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from apps.cli.program import Cli
from apps.cli.settings import running_stack
from oa_base.refusal import Refusal
from oa_localstack.processes.child import last_lines, spawn
from oa_localstack.processes.supervision import Event
from oa_localstack.services import python_module
from oa_localstack.stack import Stack

WORKER_ATTACH_TIMEOUT_S = 30.0
WORKER_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.03


@dataclass(frozen=True)
class RunningStack:
    """A stack that is ready. `own` is ours to stop; None when another shell runs it."""

    urls: dict[str, str]
    home: Path
    own: Stack | None


@asynccontextmanager
async def ready_stack(cli: Cli, on_event: Callable[[Event], None]) -> AsyncIterator[RunningStack]:
    """Yield the stack of OA_HOME: the one that runs, or one that is started and stopped here."""
    while (state := running_stack(cli.settings)) is not None and state.phase != "ready":
        await asyncio.sleep(_POLL_S)  # another shell is starting it, which takes only so long
    if state is not None:
        yield RunningStack(state.urls, cli.settings.home.absolute(), None)
        return
    stack = Stack(env=cli.env, on_event=on_event)
    try:
        await stack.start()
        yield RunningStack(stack.urls, stack.home, stack)
    finally:
        await stack.stop()


@dataclass(frozen=True)
class WorkerProcess:
    """A worker that is attached."""

    worker_id: str
    pid: int
    log: Path


@asynccontextmanager
async def attached_worker(cli: Cli, stack: RunningStack, name: str) -> AsyncIterator[WorkerProcess]:
    """Run `oa worker start --adapter exec` as a process of its own. It is attached, and drained at the end."""
    log_path = stack.home / "logs" / "worker.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        offset = log.tell()
        argv = [*python_module("openagents._oa"), "worker", "start", "--adapter", "exec", "--name", name, "--json"]
        process = spawn(argv, env=_worker_environment(cli, stack), log=log)
    try:
        worker_id = await _attached(process, log_path, offset)
        yield WorkerProcess(worker_id, process.pid, log_path)
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, WORKER_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _worker_environment(cli: Cli, stack: RunningStack) -> dict[str, str]:
    return {
        **{name: value for name, value in cli.env.items() if name not in ("OA_API_KEY", "OA_API_KEY_FILE")},
        "OA_HOME": str(stack.home),
        "OA_CONTROL_URL": cli.site_of_person.control_url,
        "OA_CLIENT_HOME": str(cli.site_of_person.folder.parent.parent),
    }


def _read(path: Path) -> bytes:
    return path.read_bytes()


async def _attached(process: subprocess.Popen[bytes], log_path: Path, offset: int) -> str:
    """Wait until the worker's log says that it is attached. Return its id. Raises Refusal `start_failed`."""
    deadline = asyncio.get_running_loop().time() + WORKER_ATTACH_TIMEOUT_S
    while True:
        for line in _read(log_path)[offset:].splitlines():
            if line.startswith(b'{"attached"'):
                return str(json.loads(line)["attached"])
        ended, late = process.poll() is not None, asyncio.get_running_loop().time() > deadline
        if ended or late:
            what = f"ended with status {process.returncode}" if ended else "did not attach"
            message = f"the worker {what}; its log is {log_path}, the last lines are:\n{last_lines(log_path)}"
            raise Refusal("start_failed", message)
        await asyncio.sleep(_POLL_S)
