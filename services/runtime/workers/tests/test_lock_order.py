"""How rows of workers are locked and changed, over the real database."""

from __future__ import annotations

import asyncio

import asyncpg

from oa_testing.locks import until_lock_waits
from oa_testing.postgres import Database
from services.runtime.tests.rig import Replica, Somebody, attached
from services.runtime.workers.store.sql import STORE_HEARTBEATS


async def test_signs_of_life_lock_workers_in_the_order_of_those_who_give_them_runs(
    runtime_database: Database, runtime: Replica, who: Somebody
) -> None:
    """Otherwise both could hold what the other one waits for."""
    first, second = [await attached(runtime, who) for _ in range(2)]
    admin, batch, other = [await asyncpg.connect(runtime_database.admin) for _ in range(3)]
    # The version of the first one now stands behind that of the second one, so a scan meets it last.
    await admin.execute("UPDATE runtime.workers SET name = 'moved' WHERE worker_id = $1", first.worker_id)
    rows = await admin.fetch("SELECT worker_id, attachment FROM runtime.workers")
    heard = [row["worker_id"] for row in rows], [row["attachment"] for row in rows]
    lock = "SELECT 1 FROM runtime.workers WHERE worker_id = $1 FOR SHARE"
    async with batch.transaction():
        await batch.execute(lock, first.worker_id)
        storing = asyncio.create_task(other.execute(STORE_HEARTBEATS, *heard))
        await until_lock_waits(admin)
        async with admin.transaction():
            await admin.execute(lock + " NOWAIT", second.worker_id)
    await storing
    for connection in (admin, batch, other):
        await connection.close()


async def test_a_heartbeat_changes_no_index(runtime_database: Database, runtime: Replica, who: Somebody) -> None:
    """It comes every few seconds from every worker: the table and all its indexes would grow with each."""
    await attached(runtime, who)
    connection = await asyncpg.connect(runtime_database.admin)
    await connection.execute("UPDATE runtime.workers SET status = 'running'")
    rows = await connection.fetch("SELECT worker_id, attachment FROM runtime.workers")
    async with connection.transaction():
        await connection.execute(
            STORE_HEARTBEATS, [row["worker_id"] for row in rows], [row["attachment"] for row in rows]
        )
        hot = "SELECT pg_stat_get_xact_tuples_hot_updated('runtime.workers'::regclass)"
        assert await connection.fetchval(hot) == len(rows) == 1
    await connection.close()
