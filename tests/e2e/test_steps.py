"""The example with steps, as it is shipped: its worker is killed in the middle, and another one goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from openagents import Client, RunEvent, events
from tests.e2e.callers import Caller, caller_of
from tests.e2e.world import RUN_TIMEOUT_S
from tests.house.files import REPO

IMPATIENT = {
    "OA_WORKER_HEARTBEAT_MS": "400",
    "OA_WORKER_QUIET_MS": "1600",
    "OA_WORKER_LOST_MS": "4000",
    "OA_WORKER_WATCH_MS": "100",
}


@pytest_asyncio.fixture
async def caller(scratch: Path) -> AsyncIterator[Caller]:
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={"runtime": IMPATIENT},
    )
    await stack.start()
    async with caller_of(stack, scratch) as caller:
        yield caller
    await stack.stop()


@asynccontextmanager
async def example(caller: Caller) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker with the agent `order`."""
    env = {**os.environ, **caller.env, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = await asyncio.create_subprocess_exec(sys.executable, str(REPO / "examples" / "steps.py"), env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_nobody_pays_twice(caller: Caller, scratch: Path) -> None:
    ledger = scratch / "ledger"
    order = {"item": "tea", "ledger": str(ledger), "wait_s": 6.0}
    seen: list[RunEvent] = []
    async with Client.from_env(caller.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        run = await client.start("order", order, key="order-1")
        async with example(caller) as first:
            async for event in run.events():
                match event.body:
                    case events.StepCompleted(name="sleep"):
                        break  # what comes before it is stored
            first.send_signal(signal.SIGKILL)
            await first.wait()
        async with example(caller):
            assert await run.output(dict[str, str]) == {"item": "tea", "paid": "15.50"}
        seen = [event async for event in run.events()]
    steps = [event.body for event in seen if isinstance(event.body, events.StepCompleted)]
    assert [(step.ordinal, step.name) for step in steps] == [(1, "quote"), (2, "charge"), (3, "sleep")]
    assert [event.body.attempt for event in seen if isinstance(event.body, events.RunStarted)] == [1, 2]
    assert ledger.read_text("utf-8") == "15.50\n", "once"
