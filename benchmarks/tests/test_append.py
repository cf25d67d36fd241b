"""The floor that appends are compared with still is the runtime's own statement."""

from __future__ import annotations

import asyncpg

from benchmarks.append import bare_append
from oa_testing.postgres import Database


async def test_the_floor_stores_what_it_counts(runtime_database: Database) -> None:
    connection = await asyncpg.connect(runtime_database.runtime)
    try:
        append = await bare_append(connection, 2, 3, may_lose_commits=True)
        assert [await append(call) for call in range(3)] == [6, 6, 6]
        assert await connection.fetchval("SELECT count(*) FROM runtime.events") == 18
    finally:
        await connection.close()
