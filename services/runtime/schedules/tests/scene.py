"""Schedules at replicas in this process; their times come when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from oa_platform.system.ids import new_id
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1 import schedule_service_pb2 as pb
from services.runtime.schedule_settings import ScheduleSettings
from services.runtime.tests.rig import Doors, Replica, Somebody, replica, runtime_settings

HOUR_MS = 3_600_000
ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
QUICK = ScheduleSettings(look_interval_ms=20)
SPEC = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["true"]))


@asynccontextmanager
async def scheduling(database: Database, who: Somebody, settings: ScheduleSettings = QUICK) -> AsyncIterator[Replica]:
    """A replica that looks often."""
    async with replica(runtime_settings(database, schedules=settings), who.key) as runtime:
        yield runtime


def request_of(name: str = "nightly", **changes: Any) -> pb.CreateScheduleRequest:
    """Every hour since `ANCHOR`, and next in half an hour: no time comes by itself while a test runs."""
    request = pb.CreateScheduleRequest(idempotency_key=new_id("key"), name=name, spec=SPEC)
    if "cron" not in changes:
        request.interval.every_ms = HOUR_MS
        soon = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30)
        request.interval.anchor_time.FromDatetime(ANCHOR + (soon - ANCHOR) % timedelta(hours=1))
    request.MergeFrom(pb.CreateScheduleRequest(**changes))
    return request


async def create(runtime: Doors, who: Somebody, name: str = "nightly", **changes: Any) -> pb.Schedule:
    """A new schedule."""
    request = request_of(name, **changes)
    made: pb.Schedule = (await runtime.schedules.CreateSchedule(request, metadata=who.as_person())).schedule
    return made


def anchor_of(schedule: pb.Schedule) -> datetime:
    """Its first time, within the hour after `ANCHOR`."""
    return schedule.interval.anchor_time.ToDatetime(UTC)


async def show(runtime: Doors, who: Somebody, handle: str = "nightly") -> pb.GetScheduleResponse:
    """A schedule as it is now."""
    request = pb.GetScheduleRequest(schedule=handle)
    shown: pb.GetScheduleResponse = await runtime.schedules.GetSchedule(request, metadata=who.as_person())
    return shown


class Hand:
    """Moves the hands of the clock for schedules: their next time is one that is past."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """The owner's."""
        connection = await asyncpg.connect(self._database.owner)
        try:
            yield connection
        finally:
            await connection.close()

    async def set_back(self, schedule: pb.Schedule, times: int = 1) -> datetime:
        """Let so many hours be undecided, of which this moment is the newest: as if nobody had looked since."""
        async with self.connection() as connection:
            newest: datetime = await connection.fetchval("SELECT clock_timestamp()")
            statement = "UPDATE runtime.schedules SET anchor_time = $2, next_time = $3 WHERE schedule_id = $1"
            first = newest - timedelta(hours=times - 1)
            await connection.execute(statement, schedule.schedule_id, newest, first)
        return newest

    async def let_come(self, schedule: pb.Schedule) -> datetime:
        """Let its next time be this moment, and leave its timing as it is."""
        statement = "UPDATE runtime.schedules SET next_time = clock_timestamp() WHERE schedule_id = $1"
        async with self.connection() as connection:
            moment: datetime = await connection.fetchval(f"{statement} RETURNING next_time", schedule.schedule_id)
        return moment

    async def runs(self, schedule: pb.Schedule) -> dict[str, str]:
        """Idempotency key, without the schedule's id, -> run."""
        statement = "SELECT create_key, run_id FROM runtime.runs WHERE starts_with(create_key, $1)"
        async with self.connection() as connection:
            rows = await connection.fetch(statement, schedule.schedule_id)
        return {row["create_key"].partition(":")[2]: row["run_id"] for row in rows}


async def settled(runtime: Doors, who: Somebody, records: int, handle: str = "nightly") -> pb.GetScheduleResponse:
    """The schedule, once so many records of its times are there."""
    async with asyncio.timeout(PATIENCE_S):
        while len((shown := await show(runtime, who, handle)).recent) < records:
            await asyncio.sleep(0.01)
    return shown


def key_of(time: datetime) -> str:
    """What a run's key says of its time."""
    return f"{time:%Y-%m-%dT%H:%M:%S.%fZ}"


async def standing(runtime: Replica, who: Somebody, name: str, status: pb.ScheduleStatus.ValueType) -> pb.Schedule:
    """The schedule, once it stands so."""
    async with asyncio.timeout(PATIENCE_S):
        while (shown := await show(runtime, who, name)).schedule.status != status:
            await asyncio.sleep(0.01)
    return shown.schedule


def starts(runtime: Replica, who: Somebody, name: str) -> dict[str, Any]:
    """What would start runs of a schedule."""
    backfill = pb.BackfillScheduleRequest(schedule=name)
    backfill.from_time.FromDatetime(ANCHOR)
    backfill.to_time.FromDatetime(ANCHOR.replace(hour=2))
    door, as_who = runtime.schedules, who.as_person()
    return {
        "resume": door.ResumeSchedule(pb.ResumeScheduleRequest(schedule=name), metadata=as_who),
        "trigger": door.TriggerSchedule(pb.TriggerScheduleRequest(schedule=name, idempotency_key="k"), metadata=as_who),
        "backfill": door.BackfillSchedule(backfill, metadata=as_who),
    }
