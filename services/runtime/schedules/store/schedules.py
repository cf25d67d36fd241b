"""Schedules in Postgres: read, and changed under a lock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg

from oa_platform.health.quarantine import Quarantine
from oa_platform.postgres.columns import columns
from oa_platform.postgres.pool import Connection, Postgres
from services.runtime.schedules.app.ports import Due, NewSchedule, Stored
from services.runtime.schedules.domain.schedule import (
    Cause,
    Outcome,
    Overlap,
    Schedule,
    ScheduledTime,
    Standing,
    Status,
)
from services.runtime.schedules.domain.timing import CronTiming, IntervalTiming, Timing
from services.runtime.schedules.store import sql


class PostgresSchedules:
    """See `ports.ScheduleStore`. All times come from the database's clock."""

    def __init__(self, postgres: Postgres, kept_times: int) -> None:
        self._postgres = postgres
        self._kept_times = kept_times

    async def find(self, org_id: str, handle: str) -> Schedule | None:
        """A schedule by its id, deleted or not, or by its name."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.FIND, org_id, handle)
        return None if row is None else schedule_of(row)

    async def listed(self, org_id: str, below: str, limit: int) -> list[Schedule]:
        """Schedules of an org below an id ("" for all), the newest first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.LIST, org_id, below, limit)
        return [schedule_of(row) for row in rows]

    async def shown(self, org_id: str, handle: str) -> Stored | None:
        """A schedule by its id or its name, with the outcomes of its last times, all as of one moment."""
        async with (
            self._postgres.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            row = await connection.fetchrow(sql.FIND, org_id, handle)
            if row is None:
                return None
            times = await connection.fetch(sql.READ_TIMES, row["schedule_id"], self._kept_times)
            now = await connection.fetchval(sql.NOW)
        return Stored(schedule_of(row), [_time_of(one) for one in times], now)

    async def active_of(self, user_id: str, org_id: str = "") -> list[str]:
        """The ids of an owner's schedules that start runs, in all orgs or in one."""
        return await self._ids(sql.ACTIVE_OF, user_id, org_id)

    async def active_in(self, org_id: str) -> list[str]:
        """The ids of an org's schedules that start runs."""
        return await self._ids(sql.ACTIVE_IN, org_id)

    async def closed_in_open_orgs(self, limit: int, left_out: Sequence[str]) -> list[str]:
        """The ids of schedules that were paused because their orgs were deleted, and whose orgs are open again."""
        return await self._ids(sql.CLOSED_IN_OPEN_ORGS, limit, left_out)

    async def _ids(self, statement: str, *arguments: object) -> list[str]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(statement, *arguments)
        return [row["schedule_id"] for row in rows]

    async def now(self) -> datetime:
        """The current time."""
        async with self._postgres.acquire() as connection:
            time: datetime = await connection.fetchval(sql.NOW)
        return time

    async def late_s(self) -> float:
        """For how many seconds the schedule that has been due the longest has been due."""
        async with self._postgres.acquire() as connection:
            return float(await connection.fetchval(sql.READ_LATE))

    async def forget_deleted(self, keep_ms: int, limit: int) -> None:
        """Drop schedules that were deleted longer than `keep_ms` ago, at most `limit`."""
        async with self._postgres.acquire() as connection:
            await connection.execute(sql.FORGET_DELETED, keep_ms, limit)

    @asynccontextmanager
    async def adding(self, org_id: str) -> AsyncIterator[PostgresAdding]:
        """A transaction that may add a schedule to an org. Other transactions that would do so wait."""
        async with self._postgres.transaction() as connection:
            await connection.fetchval(sql.LOCK_ORG, org_id)
            yield PostgresAdding(connection, org_id, await connection.fetchval(sql.NOW))

    @asynccontextmanager
    async def changing(self, schedule_id: str) -> AsyncIterator[PostgresChange]:
        """A transaction that has locked one schedule, unless the schedule is gone."""
        async with self._postgres.transaction() as connection:
            rows = await connection.fetch(sql.LOCK, schedule_id)
            yield await self._change(connection, [schedule_of(row) for row in rows])

    @asynccontextmanager
    async def due(self, limit: int, except_for: Sequence[str], broken: Quarantine) -> AsyncIterator[PostgresChange]:
        """A transaction that has locked schedules whose time has come and that no other transaction has locked."""
        async with self._postgres.transaction() as connection:
            rows = await connection.fetch(sql.TAKE_DUE, limit, [*except_for, *broken.ids])
            yield await self._change(connection, broken.decoded(rows, schedule_of))

    async def _change(self, connection: Connection, schedules: list[Schedule]) -> PostgresChange:
        now = await connection.fetchval(sql.NOW)
        return PostgresChange(connection, now, schedules, self._kept_times)


class PostgresAdding:
    """See `ports.Adding`."""

    def __init__(self, connection: Connection, org_id: str, now: datetime) -> None:
        self._connection = connection
        self._org_id = org_id
        self.now = now

    async def by_key(self, user_id: str, key: str) -> tuple[Schedule, bytes] | None:
        """The schedule that a key created, deleted or not, with the fingerprint of the request that created it."""
        row = await self._connection.fetchrow(sql.READ_BY_KEY, self._org_id, user_id, key)
        return None if row is None else (schedule_of(row), row["create_fingerprint"])

    async def count(self, name: str) -> tuple[int, bool]:
        """How many schedules the org has, and whether one of them has this name."""
        row = await self._connection.fetchrow(sql.COUNT, self._org_id, name)
        assert row is not None  # it aggregates
        return row["all_of_org"], row["of_name"] > 0

    async def add(self, new: NewSchedule) -> None:
        """Store a new schedule."""
        one = new.schedule
        arguments = (one.schedule_id, one.org_id, one.user_id, one.name, new.key, new.fingerprint)
        standing = (str(one.overlap), one.catch_up_ms, one.spec, one.create_time, one.next_time)
        await self._connection.execute(sql.INSERT, *arguments, *_timing_columns(one.timing), *standing)


class PostgresChange:
    """See `ports.Change`."""

    def __init__(self, connection: Connection, now: datetime, schedules: list[Schedule], kept_times: int) -> None:
        self._connection = connection
        self._kept_times = kept_times
        self.now = now
        self.schedules = schedules

    async def standings(self, due: Sequence[Due]) -> list[Standing]:
        """For each of these, whether its last run has ended, and the first run that its times already have."""
        about = ((one.schedule, one.keys) for one in due)
        rows = ((one.schedule_id, one.org_id, one.user_id, one.last_run_id, *keys) for one, keys in about)
        records = await self._connection.fetch(sql.READ_STANDINGS, *columns(rows, 6))
        found = {row["schedule_id"]: Standing(row["last_ended"], row["run_key"], row["run_id"]) for row in records}
        return [found[one.schedule.schedule_id] for one in due]

    async def store(self, schedule: Schedule, records: Sequence[ScheduledTime] = ()) -> None:
        """Store the state of a schedule, and the outcomes of its times."""
        where = (schedule.next_time, str(schedule.status), schedule.pause_reason, schedule.last_run_id)
        counts = (schedule.started, schedule.skipped, schedule.refused, schedule.refused_in_row)
        closed = schedule.closed_with_org
        await self._connection.execute(sql.MOVE, schedule.schedule_id, *where, *counts, closed)
        for one in records:
            what = (one.nominal, str(one.cause), str(one.outcome), one.times, one.reason, one.message, one.run_id)
            await self._connection.execute(sql.RECORD, schedule.schedule_id, *what)
        if records:
            await self._connection.execute(sql.PRUNE, schedule.schedule_id, self._kept_times)


def schedule_of(row: asyncpg.Record) -> Schedule:
    """The schedule in a row."""
    return Schedule(
        schedule_id=row["schedule_id"],
        org_id=row["org_id"],
        user_id=row["user_id"],
        name=row["name"],
        timing=_timing_of(row),
        overlap=Overlap(row["overlap"]),
        catch_up_ms=row["catch_up_ms"],
        spec=row["spec"],
        create_time=row["create_time"],
        next_time=row["next_time"],
        status=Status(row["status"]),
        pause_reason=row["pause_reason"],
        last_run_id=row["last_run_id"],
        started=row["started"],
        skipped=row["skipped"],
        refused=row["refused"],
        refused_in_row=row["refused_in_row"],
        closed_with_org=row["closed_with_org"],
        owner_ended=row["owner_ended"],
        owner_out=row["owner_out"],
        org_closed=row["org_closed"],
    )


def _timing_of(row: asyncpg.Record) -> Timing:
    if row["cron"] is not None:
        return CronTiming(row["cron"], row["time_zone"])
    anchor: datetime = row["anchor_time"]
    # The first and the last microsecond of the calendar are infinite to the driver, which reads them without a zone.
    return IntervalTiming(row["every_ms"], anchor.replace(tzinfo=UTC))


def _timing_columns(timing: Timing) -> tuple[str | None, str | None, int | None, datetime | None]:
    if isinstance(timing, CronTiming):
        return timing.expression, timing.time_zone, None, None
    return None, None, timing.every_ms, timing.anchor


def _time_of(row: asyncpg.Record) -> ScheduledTime:
    return ScheduledTime(
        nominal=row["nominal_time"],
        cause=Cause(row["cause"]),
        outcome=Outcome(row["outcome"]),
        times=row["times"],
        reason=row["reason"],
        message=row["message"],
        run_id=row["run_id"],
        recorded=row["record_time"],
    )
