"""Workers that ended long ago are removed with their topics, and nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database, patient_settings
from services.runtime.tests.rig import FakeWorker, Replica, Somebody, attached, started
from services.runtime.workers.app.ended_workers import EndedWorkers
from services.runtime.workers.limits import WorkerLimits
from services.runtime.workers.store.workers import PostgresWorkers

LIMITS = WorkerLimits(swept_page=2)


@pytest_asyncio.fixture
async def admin(runtime_database: Database) -> AsyncIterator[Any]:
    """The owner of the tables."""
    connection = await asyncpg.connect(runtime_database.admin)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def ended_workers(runtime_database: Database) -> AsyncIterator[EndedWorkers]:
    """The sweep, with the rights of the service."""
    async with Postgres(patient_settings(runtime_database.runtime), "runtime") as postgres:
        yield EndedWorkers(PostgresWorkers(postgres, "rep_1"), LIMITS)


async def _put(admin: Any, worker_id: str, status: str, days: int) -> None:
    """A worker of its own kind, heard so many days ago for the last time."""
    await admin.execute(
        "INSERT INTO runtime.workers (worker_id, service_account_id, org_id, name, adapters, max_concurrent_runs, "
        "status, attachment, last_heartbeat_at) "
        "VALUES ($1, 'sva_1', 'org_1', 'w', '{exec}', 1, $2, 'att_1', now() - $3 * interval '1 day')",
        worker_id,
        status,
        days,
    )


async def _end(admin: Any, worker_id: str) -> None:
    """Let a worker end, long ago."""
    await admin.execute(
        "UPDATE runtime.workers SET status = 'stopped', last_heartbeat_at = now() - $2 * interval '1 day' "
        "WHERE worker_id = $1",
        worker_id,
        LIMITS.ended_kept_days + 1,
    )


async def _left(admin: Any, table: str) -> list[str]:
    rows = await admin.fetch(f"SELECT DISTINCT worker_id FROM runtime.{table} ORDER BY worker_id")  # noqa: S608
    return [row["worker_id"] for row in rows]


async def test_those_that_ended_long_ago_are_removed_with_their_topics_page_by_page(
    ended_workers: EndedWorkers, admin: Any
) -> None:
    for number in range(2 * LIMITS.swept_page + 1):
        await _put(admin, f"wrk_{number}", "lost" if number % 2 else "stopped", LIMITS.ended_kept_days + 1)
    await _put(admin, "wrk_a", "lost", LIMITS.ended_kept_days - 1)
    await _put(admin, "wrk_b", "running", LIMITS.ended_kept_days + 1)
    await ended_workers.sweep()
    for table in ("workers", "worker_topics", "worker_events"):
        assert await _left(admin, table) == ["wrk_a", "wrk_b"], table


async def test_one_that_holds_a_run_stays_until_the_run_is_taken_from_it(
    runtime: Replica, who: Somebody, ended_workers: EndedWorkers, admin: Any
) -> None:
    worker = await attached(runtime, who)
    run_id = await started(runtime, who, worker)
    await _put(admin, "wrk_holder", "lost", LIMITS.ended_kept_days + 1)
    await admin.execute("UPDATE runtime.runs SET worker_id = 'wrk_holder' WHERE run_id = $1", run_id)
    await ended_workers.sweep()
    assert "wrk_holder" in await _left(admin, "workers")
    await admin.execute("UPDATE runtime.runs SET fenced = true WHERE run_id = $1", run_id)
    await ended_workers.sweep()
    assert "wrk_holder" not in await _left(admin, "workers")


async def test_who_comes_back_with_a_removed_id_is_told_to_attach_without(
    runtime: Replica, who: Somebody, ended_workers: EndedWorkers, admin: Any
) -> None:
    worker = await attached(runtime, who)
    worker.call.cancel()
    await _end(admin, worker.worker_id)
    await ended_workers.sweep()
    assert await _left(admin, "workers") == []
    with pytest.raises(Refusal) as refused:
        await FakeWorker(runtime, who, worker.worker_id).attach()
    assert refused.value.reason == "not_found"
    await FakeWorker(runtime, who).attach()
