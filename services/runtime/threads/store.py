"""Runs that have not ended, by their threads, in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

from oa_platform.postgres.pool import Postgres
from services.runtime.threads.app import Interrupted

READ_INTERRUPTED = """
SELECT DISTINCT ON (o.run_id) o.run_id, o.org_id, r.run_id AS by_run_id, r.user_id AS by_user_id
FROM runtime.runs r JOIN runtime.runs o
  ON o.org_id = r.org_id AND o.thread_id = r.thread_id AND o.run_id < r.run_id
WHERE r.thread_policy = 'interrupt' AND r.status = 'created'
  AND o.thread_id <> '' AND o.status IN ('created', 'running') AND o.run_id <> ALL($2::text[])
ORDER BY o.run_id, r.run_id LIMIT $1
"""
"""Runs that a newer, waiting run of their thread interrupts, each with the first run that does so; without those that
are left out ($2)."""


class PostgresThreads:
    """The threads of all orgs."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def interrupted(self, limit: int, left_out: Sequence[str]) -> list[Interrupted]:
        """Runs that a newer run interrupts and that nobody has asked to end."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(READ_INTERRUPTED, limit, left_out)
        return [Interrupted(row["run_id"], row["org_id"], row["by_run_id"], row["by_user_id"]) for row in rows]
