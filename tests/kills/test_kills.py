"""kill -9 of a real runtime in the middle of merging, archiving and finishing: nothing is lost, doubled or half.

`make kills` is the long form.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest_asyncio

from oa_testing.fork_server import PYTHON
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from services.runtime.archive.store.objects import STAGING_KEPT_S
from tests.kills.campaign import RUNS_OF_A_LIFE, campaign, last_look, settled
from tests.kills.check import Connection, check
from tests.kills.load import Auditor, People
from tests.kills.points import Point, Points, planted
from tests.kills.site import Site

SEED = 20261122


@pytest_asyncio.fixture
async def admin(runtime_database: Database) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(runtime_database.admin)
    yield connection
    await connection.close()


async def test_kills_at_random_moments_lose_and_double_nothing(runtime_database: Database, tmp_path: Path) -> None:
    report = await campaign(runtime_database, tmp_path, kills=5, max_life_s=0.6, seed=SEED)
    assert report.is_clean, report
    # It was no idle process that was killed.
    assert report.ended >= 2 * RUNS_OF_A_LIFE, report
    assert len(set(report.archived)) >= 2, report
    assert len(set(report.merged)) >= 2, report


# ------------------------------------------------------------------------------------------------- at known steps

FINISHING = (Point("receipts", "INSERT"), Point("receipts", "INSERT", "COMMIT"))
MERGING = (
    Point("receipt_leaves", "INSERT"),
    Point("receipt_nodes", "INSERT"),
    Point("receipts_unmerged", "DELETE"),
    Point("receipt_log", "UPDATE"),
    Point("receipt_checkpoints", "INSERT"),
    Point("receipt_leaves", "INSERT", "COMMIT"),
)
ARCHIVING = (
    Point("archived_runs", "INSERT"),
    Point("archived_runs", "INSERT", "AFTER"),
    Point("log_floors", "UPDATE"),
    Point("events", "DELETE"),
    Point("events", "DELETE", "AFTER"),
    Point("archived_runs", "INSERT", "COMMIT"),
)
_MAKE_DUE = """
UPDATE runtime.runs SET finish_time = finish_time - interval '1 hour'
WHERE finish_time > clock_timestamp() - interval '30 minutes' AND NOT archived
"""


async def test_kills_at_each_step_of_a_merge_an_archiving_and_a_finish_leave_all_or_nothing(
    runtime_database: Database, tmp_path: Path, admin: Connection
) -> None:
    async with (
        Site(runtime_database, tmp_path, interpreter=PYTHON) as site,
        planted(runtime_database, *FINISHING, *MERGING, *ARCHIVING) as points,
    ):
        people, auditor = People(site, SEED), Auditor(site)
        await site.start()
        await site.until_ready()
        for step, (merging, archiving) in enumerate(zip(MERGING, ARCHIVING, strict=True)):
            await auditor.look()
            await points.hold(merging, archiving)
            await people.one_run()
            await admin.execute(_MAKE_DUE)
            await points.reached()
            await points.hold(FINISHING[step % 2])
            another = asyncio.create_task(people.one_run())
            await points.reached()
            await _killed_and_started(site, points, admin)
            await another
            await admin.execute(_MAKE_DUE)
            found = await settled(admin, site)
            assert await last_look(found, people, auditor, site) == [], (merging, archiving)
        assert len(people.ended) == 2 * len(MERGING)


async def _killed_and_started(site: Site, points: Points, admin: Connection) -> None:
    """The next process is up while the killed one's transactions still stand; only then they end, either way."""
    site.kill()
    assert (await check(admin, site.archive)).wrong == []
    await site.start()
    await site.until_ready()
    assert (await check(admin, site.archive)).wrong == []
    await points.release()


async def test_a_kill_in_the_middle_of_a_write_leaves_no_object_and_no_litter(
    runtime_database: Database, tmp_path: Path, admin: Connection
) -> None:
    async with Site(runtime_database, tmp_path, interpreter=PYTHON) as site:
        people, auditor = People(site, SEED), Auditor(site)
        await site.start()
        await site.until_ready()
        left = await _killed_in_a_write(site, people, admin)
        assert (await check(admin, site.archive)).wrong == []
        await site.start()
        await site.until_ready()
        found = await settled(admin, site)
        assert await last_look(found, people, auditor, site) == []
        assert site.half_written() == [left], "it is as if somebody still wrote to it"
        long_ago = left.stat().st_mtime - STAGING_KEPT_S - 60
        os.utime(left, (long_ago, long_ago))
        await people.one_run()
        await admin.execute(_MAKE_DUE)
        assert (await settled(admin, site)).is_settled
        assert site.half_written() == []


async def _killed_in_a_write(site: Site, people: People, admin: Connection) -> Path:
    """The file that was half written. It is there for some milliseconds, so a try may come too late."""
    for _ in range(20):
        before = site.objects()
        await people.long_run(appends=30, append_bytes=200_000)
        await admin.execute(_MAKE_DUE)
        async with asyncio.timeout(PATIENCE_S):
            while not site.half_written() and site.objects() == before:
                await asyncio.sleep(0)
        site.kill()
        if left := site.half_written():
            return left[0]
        await site.start()
        await site.until_ready()
    raise AssertionError("never killed in the middle of a write")
