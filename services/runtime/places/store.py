"""Places in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.postgres.pool import Postgres
from services.runtime.places.app import OpenRun

TAKE = """
INSERT INTO runtime.places AS known (subject, org_id, is_lost, position, changed_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (subject, org_id) DO UPDATE
SET is_lost = excluded.is_lost, position = excluded.position, changed_at = excluded.changed_at,
    heard_at = clock_timestamp()
WHERE excluded.position > known.position OR excluded.changed_at > known.changed_at
RETURNING true
"""
"""Remembers a change that is newer than what is known. Its position says so; its time does where control's order was
begun anew from a backup, and the positions come again."""

READ_OPEN_RUNS = """
SELECT r.run_id, p.org_id FROM runtime.places p CROSS JOIN LATERAL (
    (SELECT w.run_id FROM runtime.runs w
     WHERE w.org_id = p.org_id AND (w.status = 'created' OR (w.status = 'running' AND w.fenced)) LIMIT $1)
    UNION ALL
    (SELECT h.run_id FROM runtime.runs h
     WHERE h.org_id = p.org_id AND h.status IN ('running', 'canceling') AND NOT h.fenced AND h.status = 'running'
     LIMIT $1)
) r
WHERE p.subject = '' AND p.is_lost LIMIT $1
"""
"""Runs of deleted orgs that wait for a worker or are at one, by the two indexes that there are of such runs."""


class PostgresPlaces:
    """See `app.PlaceStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def take(self, change: Revocation) -> bool:
        """Remember a change, unless a newer one of the place is known; whether it was news."""
        is_lost = change.place_change is PlaceChange.LOST
        when = datetime.fromtimestamp(change.revoked_s, UTC)
        async with self._postgres.acquire() as connection:
            return bool(await connection.fetchval(TAKE, change.subject, change.org_id, is_lost, change.position, when))

    async def open_runs(self, limit: int) -> Sequence[OpenRun]:
        """Runs of deleted orgs that nobody has asked to end."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(READ_OPEN_RUNS, limit)
        return [OpenRun(row["run_id"], row["org_id"]) for row in rows]
