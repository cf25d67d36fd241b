"""Runs and the runs that they have started, in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from oa_platform.health.quarantine import Quarantine
from oa_platform.postgres.pool import Postgres
from oa_runlog import wire
from services.runtime.children.app import EndedChild, Family, Orphan, UntoldChild, child_key

READ_FAMILY = """
WITH RECURSIVE above AS (
    SELECT parent_run_id, status, concurrency_key, thread_id, 0 AS depth FROM runtime.runs WHERE run_id = $1
    UNION ALL
    SELECT r.parent_run_id, r.status, r.concurrency_key, r.thread_id, a.depth + 1
    FROM above a JOIN runtime.runs r ON r.run_id = a.parent_run_id
    WHERE a.parent_run_id <> ''
), going_on AS (
    SELECT concurrency_key, thread_id FROM above WHERE status IN ('created', 'running', 'canceling')
)
SELECT (SELECT coalesce(max(depth), 0) + 1 FROM above) AS depth,
       ARRAY(SELECT concurrency_key FROM going_on WHERE concurrency_key <> '') AS keys,
       ARRAY(SELECT thread_id FROM going_on WHERE thread_id <> '') AS threads
"""
"""The number of generations above a child of a run, and the concurrency keys and threads of the child's ancestors that
have not ended."""

READ_UNTOLD = """
SELECT c.run_id, c.create_key, c.spec FROM runtime.runs c
WHERE c.parent_run_id = $1 AND c.parent_run_id <> '' AND NOT EXISTS (
    SELECT 1 FROM runtime.events e WHERE e.run_id = $1 AND e.idempotency_key = 'child/started/' || c.run_id)
ORDER BY c.create_time, c.run_id
"""
"""Children of a run that its log does not have. `TellChild` makes the key of the event."""

READ_ENDED = """
SELECT c.run_id, c.finish, c.parent_run_id, c.org_id, p.status = 'running' AS is_awaited
FROM runtime.runs c JOIN runtime.runs p ON p.run_id = c.parent_run_id
WHERE c.parent_run_id <> '' AND NOT c.parent_told AND c.finish_time IS NOT NULL AND c.run_id <> ALL($2::text[])
ORDER BY c.finish_time LIMIT $1
"""
"""Children that have ended and have not been handled, without those that are left out ($2)."""

MARK_TOLD = "UPDATE runtime.runs SET parent_told = true WHERE run_id = ANY($1::text[])"
"""Marks children as handled: their parents were told, or have ended."""

READ_ORPHANS = """
SELECT c.run_id, c.org_id, p.user_id, c.parent_run_id
FROM runtime.runs c JOIN runtime.runs p ON p.run_id = c.parent_run_id
WHERE c.parent_run_id <> '' AND c.cancel_with_parent AND c.status IN ('created', 'running')
  AND p.status NOT IN ('created', 'running') AND c.run_id <> ALL($2::text[])
ORDER BY c.run_id LIMIT $1
"""
"""Children that end with their parents and whose parents are ending or have ended, without those that are left out."""


class PostgresFamilies:
    """The families of all orgs."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def family(self, run_id: str) -> Family:
        """The family of a run."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(READ_FAMILY, run_id)
        assert row is not None  # it counts
        return Family(row["depth"], frozenset(row["keys"]), frozenset(row["threads"]))

    async def untold(self, run_id: str) -> list[UntoldChild]:
        """The children of a run whose start its log lacks, the oldest first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(READ_UNTOLD, run_id)
        before = child_key(run_id, "")
        return [
            UntoldChild(row["run_id"], row["create_key"].removeprefix(before), wire.decode_spec(row["spec"]))
            for row in rows
        ]

    async def ended(self, limit: int, broken: Quarantine) -> list[EndedChild]:
        """Children that have ended and have not been handled, the longest ago first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(READ_ENDED, limit, broken.ids)
        return broken.decoded(rows, _ended)

    async def told(self, run_ids: Sequence[str]) -> None:
        """Mark these children as handled."""
        async with self._postgres.acquire() as connection:
            await connection.execute(MARK_TOLD, list(run_ids))

    async def orphans(self, limit: int, left_out: Sequence[str]) -> list[Orphan]:
        """Orphans that nobody has asked to end yet."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(READ_ORPHANS, limit, left_out)
        return [Orphan(row["run_id"], row["org_id"], row["user_id"], row["parent_run_id"]) for row in rows]


def _ended(row: asyncpg.Record) -> EndedChild:
    finish = wire.decode_finish(row["finish"])
    return EndedChild(row["run_id"], finish, row["parent_run_id"], row["org_id"], row["is_awaited"])
