"""The example with steps, as it is shipped: its worker is killed in the middle, and another one goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from openagents import Client, RunEvent, events
from openagents.testing import RecordedRun, replay
from tests.e2e.callers import Caller
from tests.e2e.killed import example, impatient, module_of
from tests.e2e.world import RUN_TIMEOUT_S


@pytest_asyncio.fixture
async def caller(scratch: Path) -> AsyncIterator[Caller]:
    async with impatient(scratch) as caller:
        yield caller


async def test_nobody_pays_twice(caller: Caller, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = scratch / "ledger"
    order = {"item": "tea", "ledger": str(ledger), "wait_s": 6.0}
    seen: list[RunEvent] = []
    async with Client.from_env(caller.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        run = await client.start("order", order, key="order-1")
        async with example(caller, "steps.py") as first:
            async for event in run.events():
                match event.body:
                    case events.StepCompleted(name="sleep"):
                        break  # what comes before it is stored
            first.send_signal(signal.SIGKILL)
            await first.wait()
        async with example(caller, "steps.py"):
            assert await run.output(dict[str, str]) == {"item": "tea", "paid": "15.50"}
        seen = [event async for event in run.events()]
    steps = [event.body for event in seen if isinstance(event.body, events.StepCompleted)]
    assert [(step.ordinal, step.name) for step in steps] == [(1, "quote"), (2, "charge"), (3, "sleep")]
    assert [event.body.attempt for event in seen if isinstance(event.body, events.RunStarted)] == [1, 2]
    assert ledger.read_text("utf-8") == "15.50\n", "once"
    replayed = await replay(module_of("steps.py", caller.env, monkeypatch).worker, RecordedRun.of(seen))
    replayed.check(whole=True)
    assert ledger.read_text("utf-8") == "15.50\n", "nor is it paid again when the record is replayed"
