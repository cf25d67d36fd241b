"""The agents that workers have stated, in Postgres: a part of the worker's row."""

from __future__ import annotations

from oa_platform.postgres.pool import Postgres

READ_INPUT_SCHEMA = """
SELECT w.agents -> $2 ->> 'input_schema' AS input_schema
FROM runtime.workers w
WHERE w.org_id = $1 AND $2 = ANY(w.adapters) AND w.status IN ('starting', 'running')
ORDER BY (w.agents -> $2 ->> 'input_schema') IS NOT NULL, w.worker_id DESC LIMIT 1
"""
"""The input schema of the newest worker that takes runs of an adapter; a worker that states none comes first. The id of
a worker grows with the time of its first stream, so an old worker does not become newer when it comes back."""


class PostgresAgents:
    """The agents that present workers have stated."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def input_schema(self, org_id: str, adapter: str) -> str:
        """The schema against which an org's inputs for an adapter are checked; empty for none."""
        async with self._postgres.acquire() as connection:
            return await connection.fetchval(READ_INPUT_SCHEMA, org_id, adapter) or ""
