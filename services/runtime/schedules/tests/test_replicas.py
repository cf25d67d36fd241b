"""Several replicas, and those that die at the worst moment: a time has one run, and it is known what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_platform.telemetry.metrics import REGISTRY
from oa_runlog.authority.commands import CreateRun
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import schedule_service_pb2 as pb
from services.runtime.log.domain.batch import Applied
from services.runtime.schedules.domain.schedule import Schedule, ScheduledTime
from services.runtime.schedules.store.schedules import PostgresChange
from services.runtime.schedules.tests.scene import HOUR_MS, Hand, create, key_of, scheduling, settled, show
from services.runtime.tests.rig import somebody
from services.runtime.workers.app.dispatcher import Dispatcher

SCHEDULES = 12
ROUNDS = 4
UNDONE = "UPDATE runtime.schedules SET started = 0, last_run_id = '', next_time = $1"
"""Of a schedule with one run, what was stored when the run was."""
RENAMED = "UPDATE runtime.runs SET create_key = $1 WHERE starts_with(create_key, 'sch_')"
ALL_DAY: dict[str, Any] = {"catch_up_ms": 24 * HOUR_MS, "overlap": pb.OVERLAP_POLICY_ALLOW}


async def test_two_replicas_start_each_time_once(runtime_database: Database) -> None:
    who, hand = somebody(), Hand(runtime_database)
    async with scheduling(runtime_database, who) as one, scheduling(runtime_database, who) as two:
        made = [await create(one, who, f"s{number}", **ALL_DAY) for number in range(SCHEDULES)]
        times = dict[str, list[str]]()
        for number in range(1, ROUNDS + 1):
            newest = await asyncio.gather(*map(hand.set_back, made))
            for schedule, time in zip(made, newest, strict=True):
                times.setdefault(schedule.schedule_id, []).append(key_of(time))
                await settled(two, who, number, schedule.name)
        for schedule in made:
            assert sorted(await hand.runs(schedule)) == times[schedule.schedule_id]
            assert (await show(two, who, schedule.name)).schedule.started == ROUNDS


class Deaths:
    """Whoever has created a run dies, so many times: the transaction that would move the schedule on is rolled back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, deaths: int) -> None:
        self.left = deaths
        self.happened = asyncio.Event()
        store = PostgresChange.store

        async def dying(change: PostgresChange, schedule: Schedule, records: Sequence[ScheduledTime] = ()) -> None:
            if records and self.left:
                self.left -= 1
                self.happened.set()
                raise Refusal("unavailable", "the replica died; look at another one")
            await store(change, schedule, records)

        monkeypatch.setattr(PostgresChange, "store", dying)


@pytest.mark.parametrize(
    "overlap", [pb.OVERLAP_POLICY_SKIP, pb.OVERLAP_POLICY_ALLOW, pb.OVERLAP_POLICY_CANCEL_PREVIOUS]
)
async def test_a_replica_that_dies_between_run_and_schedule_makes_no_second_run(
    overlap: pb.OverlapPolicy.ValueType, runtime_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, hand = somebody(), Hand(runtime_database)
    deaths = Deaths(monkeypatch, 3)
    async with scheduling(runtime_database, who) as one, scheduling(runtime_database, who):
        made = await create(one, who, overlap=overlap, catch_up_ms=24 * HOUR_MS)
        newest = await hand.set_back(made, times=2)
        shown = await settled(one, who, 2)
        assert deaths.left == 0
        (run_id,) = (await hand.runs(made)).values()
        assert list(await hand.runs(made)) == [key_of(newest)]
        assert (shown.recent[0].run_id, shown.schedule.last_run_id) == (run_id, run_id)
        assert (shown.schedule.started, shown.schedule.skipped) == (1, 1)


async def test_a_started_time_is_not_missed_when_another_one_has_come_since(runtime_database: Database) -> None:
    """Its starter died, and nobody looked until long thereafter."""
    who, hand = somebody(), Hand(runtime_database)
    async with scheduling(runtime_database, who) as runtime:
        made = await create(runtime, who, **ALL_DAY)
        newest = await hand.set_back(made)
        await settled(runtime, who, 1)
    async with hand.connection() as connection:
        await connection.execute("DELETE FROM runtime.schedule_times")
        await connection.execute(UNDONE, newest - timedelta(hours=3))
        await connection.execute(RENAMED, f"{made.schedule_id}:{key_of(newest - timedelta(hours=2))}")
    async with scheduling(runtime_database, who) as runtime:
        shown = await settled(runtime, who, 4)
        assert (shown.schedule.started, shown.schedule.skipped) == (2, 2)
        outcomes = [(record.outcome, record.times) for record in shown.recent]
        started, skipped = (pb.SCHEDULED_OUTCOME_STARTED, 1), (pb.SCHEDULED_OUTCOME_SKIPPED, 1)
        assert outcomes == [started, skipped, started, skipped]


async def test_what_is_refused_for_a_moment_is_tried_again(
    runtime_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, hand = somebody(), Hand(runtime_database)
    create_run, left = Dispatcher.create, [3]

    async def overloaded(dispatcher: Dispatcher, command: CreateRun) -> Applied:
        if left[0]:
            left[0] -= 1
            raise Refusal("overloaded", "too much is going on; try again")
        return await create_run(dispatcher, command)

    monkeypatch.setattr(Dispatcher, "create", overloaded)
    async with scheduling(runtime_database, who) as runtime:
        made = await create(runtime, who, **ALL_DAY)
        await hand.set_back(made)
        shown = await settled(runtime, who, 1)
        assert left == [0]
        assert (shown.schedule.started, shown.schedule.refused, len(await hand.runs(made))) == (1, 0, 1)


async def test_a_schedule_that_somebody_holds_keeps_up_no_other_one(runtime_database: Database) -> None:
    who, hand = somebody(), Hand(runtime_database)
    async with scheduling(runtime_database, who) as runtime:
        held, free = await create(runtime, who, "held", **ALL_DAY), await create(runtime, who, "free", **ALL_DAY)
    await hand.set_back(held)
    await hand.set_back(free)
    async with hand.connection() as connection:
        holding = connection.transaction()
        await holding.start()
        await connection.execute("SELECT FROM runtime.schedules WHERE name = 'held' FOR UPDATE")
        async with scheduling(runtime_database, who) as runtime:
            await settled(runtime, who, 1, "free")
            assert list((await show(runtime, who, "held")).recent) == []
            async with asyncio.timeout(PATIENCE_S):
                while not REGISTRY.get_sample_value("oa_runtime_schedules_late_seconds"):
                    await asyncio.sleep(0.01)
            await holding.rollback()
            await settled(runtime, who, 1, "held")
            async with asyncio.timeout(PATIENCE_S):
                while REGISTRY.get_sample_value("oa_runtime_schedules_late_seconds"):
                    await asyncio.sleep(0.01)
