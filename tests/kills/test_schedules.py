"""Two runtimes look after the same schedules and are killed, one at a time and both at once: each time has one run."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from oa_platform.system.ids import new_id
from oa_testing.fork_server import PYTHON
from oa_testing.postgres import Database
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1 import schedule_service_pb2 as pb
from tests.kills.check import Connection
from tests.kills.site import Site

SCHEDULES = 8
EVERY_MS = 200
KILLS = 6
SEED = 20261127
ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
OFTEN = {"OA_SCHEDULES_LOOK_MS": "10", "OA_SCHEDULES_MIN_DISTANCE_MS": "1", "OA_SCHEDULES_PAGE": "3"}
RUNS = """
SELECT split_part(create_key, ':', 1) AS schedule_id, create_key FROM runtime.runs WHERE starts_with(create_key, 'sch_')
"""
SCHEDULES_NOW = "SELECT schedule_id, create_time, next_time, started, skipped, refused FROM runtime.schedules"


@asynccontextmanager
async def two_sites(database: Database, root: Path) -> AsyncIterator[tuple[Site, Site]]:
    """Two runtimes on one database, started and ready."""
    async with AsyncExitStack() as stack:
        sites = []
        for name in ("one", "two"):
            (root / name).mkdir()
            site = await stack.enter_async_context(Site(database, root / name, OFTEN, PYTHON))
            await site.start()
            await site.until_ready()
            sites.append(site)
        yield sites[0], sites[1]


async def _create(site: Site, number: int) -> None:
    spec = event_pb2.RunSpec(adapter="none", exec=event_pb2.ExecSpec(argv=["true"]))
    request = pb.CreateScheduleRequest(
        idempotency_key=new_id("key"), name=f"s{number}", spec=spec, overlap=pb.OVERLAP_POLICY_ALLOW
    )
    request.interval.every_ms = EVERY_MS
    request.interval.anchor_time.FromDatetime(ANCHOR)
    await site.doors.schedules.CreateSchedule(request, metadata=site.who.as_person())


async def _started(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT sum(started) FROM runtime.schedules"))


async def _more_are_started(connection: Connection) -> None:
    goal = await _started(connection) + SCHEDULES
    async with asyncio.timeout(120):
        while await _started(connection) < goal:
            await asyncio.sleep(0.01)


async def test_every_time_has_one_run_or_was_skipped_whoever_dies(runtime_database: Database, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    connection = await asyncpg.connect(runtime_database.owner)
    async with two_sites(runtime_database, tmp_path) as sites:
        for number in range(SCHEDULES):
            await _create(sites[0], number)
        for number in range(KILLS):
            await _more_are_started(connection)
            await asyncio.sleep(chance.uniform(0, EVERY_MS / 1000))
            victims = sites if number == KILLS - 1 else (sites[number % 2],)
            for site in victims:
                site.kill()
            for site in victims:
                await site.start()
                await site.until_ready()
        await _more_are_started(connection)
        # This waits for the replicas that look after them.
        await connection.execute("UPDATE runtime.schedules SET status = 'paused'")
    schedules = await connection.fetch(SCHEDULES_NOW)
    runs = [(row["schedule_id"], row["create_key"]) for row in await connection.fetch(RUNS)]
    await connection.close()
    assert len(runs) == len(set(runs))
    counted = Counter(schedule_id for schedule_id, _ in runs)
    every = timedelta(milliseconds=EVERY_MS)
    for row in schedules:
        settled = (row["next_time"] - ANCHOR) // every - (row["create_time"] - ANCHOR) // every - 1
        assert row["started"] + row["skipped"] == settled, "every time was settled, once"
        assert counted[row["schedule_id"]] == row["started"], "a run was started for each time that says so"
        assert row["refused"] == 0
    for _, key in runs:
        time = datetime.fromisoformat(key.partition(":")[2])
        assert (time - ANCHOR) % every == timedelta(0)
