"""Schedules as a program uses them, against a real stack: a run starts by the clock, and it shows what became of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from oa_platform.system.ids import new_id
from oa_testing.stack import StackUnderTest
from openagents import Client, Cron, Every, ExecSpec, Refusal, ScheduleDetails, ScheduleHandle
from tests.e2e.callers import Caller, caller_of
from tests.e2e.world import RUN_TIMEOUT_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

TICK = ExecSpec((sys.executable, "-c", "print('tick')"))
SOON = timedelta(seconds=2)
"""For a schedule to be created before its first time comes; what comes later has a minute, and as many tries."""


@pytest_asyncio.fixture(loop_scope="module")
async def program(shared_stack: StackUnderTest, tmp_path: Path) -> AsyncIterator[Caller]:
    async with caller_of(shared_stack, tmp_path) as caller:
        yield caller


async def _first_record(schedule: ScheduleHandle) -> ScheduleDetails:
    while not (found := await schedule.state()).recent:
        await asyncio.sleep(0.1)
    return found


async def test_a_run_starts_by_the_clock_and_belongs_to_who_made_the_schedule(program: Caller) -> None:
    async with program.world.worker(), Client.from_env(program.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        timing = Every(timedelta(minutes=1), datetime.now(UTC) + SOON)
        schedule = await client.create_schedule(new_id("key").lower(), timing, "exec", TICK, labels={"team": "search"})
        found = await _first_record(schedule)
        (record,) = found.recent
        assert (record.outcome, record.cause, found.schedule.last_run_id) == ("started", "clock", record.run_id)
        run = client.run(record.run_id)
        assert (await run.result()).stdout_bytes == len("tick\n")
        document = (await run.state()).document
        assert (document["userId"], document["spec"]["labels"]) == (found.schedule.owner, {"team": "search"})
        assert document["spec"]["title"] == schedule.name
        assert len(found.next_times) == 5
        await schedule.delete()
        with pytest.raises(Refusal, match="not_found"):
            await schedule.state()


async def test_what_a_program_may_ask_of_a_schedule(program: Caller) -> None:
    async with program.world.worker(), Client.from_env(program.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        name, key = new_id("key").lower(), new_id("key")
        nightly = Cron("0 3 * * *", "Europe/Zurich")
        for _ in range(2):
            schedule = await client.create_schedule(name, nightly, "exec", TICK, key=key, overlap="allow")
        with pytest.raises(Refusal, match="idempotency_conflict"):
            await client.create_schedule(name, nightly, "exec", TICK, key=key)
        assert [one.timing for one in [one async for one in client.schedules()] if one.name == name] == [
            "0 3 * * * (Europe/Zurich)"
        ]
        assert (await schedule.pause("holidays")).pause_reason == "holidays"
        first, again = [await schedule.trigger(key="now") for _ in range(2)]
        assert first.run_id == again.run_id
        week = datetime(2026, 10, 19, tzinfo=UTC), datetime(2026, 10, 26, tzinfo=UTC)
        past, same = await schedule.backfill(*week), await schedule.backfill(*week)
        assert [run.run_id for run in past] == [run.run_id for run in same]
        assert len({run.run_id for run in past}) == 7
        assert (await past[-1].result()).outcome == "succeeded"
        assert (await schedule.resume()).status == "active"
        with pytest.raises(Refusal) as wrong:
            await client.create_schedule("x", Every(timedelta(seconds=1)), "exec", TICK)
        assert (wrong.value.reason, wrong.value.field) == ("invalid_value", "interval.every_ms")
        with pytest.raises(Refusal, match="invalid_enum"):
            await client.create_schedule("x", nightly, "exec", TICK, overlap="queue")
        await schedule.delete()
