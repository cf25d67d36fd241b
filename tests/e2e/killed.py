"""Examples whose worker is killed, on a stack that notices that soon."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from tests.e2e.callers import Caller, caller_of
from tests.house.files import REPO

_IMPATIENT = {
    "OA_WORKER_HEARTBEAT_MS": "400",
    "OA_WORKER_QUIET_MS": "1600",
    "OA_WORKER_LOST_MS": "4000",
    "OA_WORKER_WATCH_MS": "100",
}


@asynccontextmanager
async def impatient(scratch: Path) -> AsyncIterator[Caller]:
    """A caller of a stack of its own, which takes a worker for lost after seconds."""
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={"runtime": _IMPATIENT},
    )
    await stack.start()
    async with caller_of(stack, scratch) as caller:
        yield caller
    await stack.stop()


@asynccontextmanager
async def example(caller: Caller, file: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker with the agent of an example."""
    env = {**os.environ, **caller.env, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = await asyncio.create_subprocess_exec(sys.executable, str(REPO / "examples" / file), env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
