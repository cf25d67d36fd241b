"""Places in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

from oa_platform.auth.revocations import Revocation
from oa_platform.postgres.pool import Postgres
from oa_platform.process.places import remember
from services.runtime.places.app import OpenRun

READ_OPEN_RUNS = """
SELECT r.run_id, p.org_id FROM runtime.places p CROSS JOIN LATERAL (
    (SELECT w.run_id FROM runtime.runs w
     WHERE w.org_id = p.org_id COLLATE "default" AND (w.status = 'created' OR (w.status = 'running' AND w.fenced))
     AND w.run_id <> ALL($2::text[]) LIMIT $1)
    UNION ALL
    (SELECT h.run_id FROM runtime.runs h
     WHERE h.org_id = p.org_id COLLATE "default" AND h.status IN ('running', 'canceling') AND NOT h.fenced
     AND h.status = 'running' AND h.run_id <> ALL($2::text[]) LIMIT $1)
) r
WHERE p.subject = '' AND p.is_lost LIMIT $1
"""
"""Runs of deleted orgs that wait for a worker or are held by one, found by the two indexes of such runs; without those
that are left out ($2). The collation is that of the indexes: with that of the places, they would be read whole for each
org."""


class PostgresPlaces:
    """See `app.PlaceStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def take(self, change: Revocation) -> bool:
        """Store a change, unless a newer change of the place is known; return whether it was new."""
        async with self._postgres.acquire() as connection:
            return await remember(connection, "runtime", change)

    async def open_runs(self, limit: int, left_out: Sequence[str]) -> Sequence[OpenRun]:
        """Runs of deleted orgs that nobody has asked to end."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(READ_OPEN_RUNS, limit, left_out)
        return [OpenRun(row["run_id"], row["org_id"]) for row in rows]
