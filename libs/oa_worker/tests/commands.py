"""Commands that are run as the adapter `exec` runs them, with a log that keeps what they say."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.exec.adapter import ExecAdapter
from oa_worker.sdk.adapter import Assignment
from oa_worker.sdk.limits import ExecLimits
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import EventBody, ExecSpec, RunFinished, RunSpec

QUICK = ExecLimits(terminate_grace_ms=300, leftover_grace_ms=300)


class Log:
    """Where a test's adapter emits to."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.data = {event_pb2.TEXT_STREAM_STDOUT: b"", event_pb2.TEXT_STREAM_STDERR: b""}
        self.delay_s = delay_s
        self.first = asyncio.Event()

    async def emit(self, event: EventBody) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        self.data[event.text_delta.stream] += event.text_delta.data
        self.first.set()

    @property
    def stdout(self) -> bytes:
        return self.data[event_pb2.TEXT_STREAM_STDOUT]

    @property
    def stderr(self) -> bytes:
        return self.data[event_pb2.TEXT_STREAM_STDERR]


def assignment(*argv: str, timeout_ms: int = 0, cwd: str = "", env: dict[str, str] | None = None) -> Assignment:
    spec = ExecSpec(argv=argv, timeout_ms=timeout_ms, working_directory=cwd, environment=env or {})
    return Assignment("run_" + "0" * 26, 1, 1, RunSpec(adapter="exec", exec=spec))


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-u", "-c", code)


async def run(*argv: str, log: Log | None = None, limits: ExecLimits = QUICK, timeout_ms: int = 0) -> RunFinished:
    return await ExecAdapter(limits).run(assignment(*argv, timeout_ms=timeout_ms), (log or Log()).emit)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def alive(pid: int) -> bool:
    """Whether it runs; a zombie that nobody has reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def until_dead(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while alive(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert not alive(pid)
