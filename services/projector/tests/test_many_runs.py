"""A page of a list costs the same whatever the org has done in years: it reads the rows that it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from oa_platform.postgres.pool import Postgres
from oa_runlog.state import RunStatus
from oa_testing.postgres import Database, patient_settings
from services.projector.summaries.app import SummaryQuery
from services.projector.summaries.store import PostgresSummaryStore, id_range
from services.projector.tests import histories as h
from services.projector.tests.rig import CODEC, Rig

RUNS = 20_000
PAGE = 50
_COPIES = """
INSERT INTO projection.run_summaries (version, run_id, user_id, org_id, status, latest_seq, document, summary_hash)
SELECT version, 'run_' || lpad(n::text, 26, '0'), CASE WHEN n % 100 = 0 THEN $2 ELSE user_id END, org_id,
       CASE WHEN n % 1000 = 0 THEN 'failed' ELSE 'succeeded' END, latest_seq, document, summary_hash
FROM projection.run_summaries, generate_series(1, $1::integer) AS n
"""
_ROWS_READ = """
SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'run_summaries'
"""
_FLUSH = "SELECT pg_stat_force_next_flush()"


def _id(number: int) -> str:
    return f"run_{number:026}"


EVERYBODY = SummaryQuery(h.ORG, None, None, "", "", PAGE)


@pytest_asyncio.fixture
async def owner(rig: Rig, projector_database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Copies of one run, one of a hundred by somebody else, one of a thousand failed."""
    await rig.apply(await rig.checkpoint(), h.whole_run(RUNS + 1))
    connection = await asyncpg.connect(projector_database.admin)
    await connection.execute(_COPIES, RUNS, h.OTHER_USER)
    await connection.execute("VACUUM ANALYZE projection.run_summaries")
    yield connection
    await connection.close()


QUERIES = {
    "first": EVERYBODY,
    "middle": replace(EVERYBODY, before=_id(RUNS // 2)),
    "last": replace(EVERYBODY, before=_id(PAGE)),
    "one": replace(EVERYBODY, prefix=_id(PAGE)),
    "failed": replace(EVERYBODY, status=RunStatus.FAILED),
    "running": replace(EVERYBODY, status=RunStatus.RUNNING),
    "of somebody": replace(EVERYBODY, user_id=h.OTHER_USER),
    "failed of somebody": replace(EVERYBODY, user_id=h.OTHER_USER, status=RunStatus.FAILED),
    "failed of the busiest": replace(EVERYBODY, user_id=h.USER, status=RunStatus.FAILED),
}


async def test_a_page_reads_what_it_shows(owner: asyncpg.Connection, projector_database: Database) -> None:
    settings = patient_settings(projector_database.projector, pool_min=1, pool_max=1)
    read = {}
    async with Postgres(settings, "projector") as postgres:
        store = PostgresSummaryStore(postgres, CODEC)
        for name, query in QUERIES.items():
            before = await owner.fetchval(_ROWS_READ)
            for _ in range(8):  # a prepared statement may get another plan after a few calls
                await store.page(query)
            async with postgres.acquire() as connection:
                await connection.execute(_FLUSH)
            read[name] = (await owner.fetchval(_ROWS_READ) - before) / 8
    assert {name: rows for name, rows in read.items() if rows > 2 * PAGE} == {}


@pytest.mark.parametrize(
    ("prefix", "before", "expected"),
    [
        ("", "", ("", "~")),
        ("run_0", "", ("run_0", "run_0a")),
        ("", "run_05", ("", "run_05")),
        ("run_0", "run_05", ("run_0", "run_05")),
        ("run_0", "run_15", ("run_0", "run_0a")),
    ],
)
def test_ids_with_a_prefix_before_another_one_are_a_range(prefix: str, before: str, expected: tuple[str, str]) -> None:
    assert id_range(prefix, before) == expected
