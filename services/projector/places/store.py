"""Places in Postgres."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.postgres.pool import Connection, Postgres
from services.projector.places.domain import Place

_TAKE = """
INSERT INTO projection.places AS known (subject, org_id, is_lost, position, changed_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (subject, org_id) DO UPDATE
SET is_lost = excluded.is_lost, position = excluded.position, changed_at = excluded.changed_at
WHERE excluded.position > known.position OR excluded.changed_at > known.changed_at
RETURNING true
"""
"""Remembers a change that is newer than what is known. Its position says so; its time does where control's order was
begun anew from a backup, and the positions come again."""

_LOST = """
SELECT subject, org_id FROM unnest($1::text[], $2::text[]) AS asked (subject, org_id)
WHERE EXISTS (SELECT FROM projection.lost_places(asked.subject, asked.org_id))
"""
"""Those of the places ($1, $2) that were lost."""


class PostgresPlaces:
    """`app.PlaceStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def take(self, change: Revocation) -> bool:
        """See PlaceStore."""
        is_lost = change.place_change is PlaceChange.LOST
        when = datetime.fromtimestamp(change.revoked_s, UTC)
        async with self._postgres.acquire() as connection:
            return bool(await connection.fetchval(_TAKE, change.subject, change.org_id, is_lost, change.position, when))


class PostgresPlaceReader:
    """`app.PlaceReader` on one connection that has a transaction open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lost(self, places: Collection[Place]) -> set[Place]:
        """See PlaceReader."""
        subjects, orgs = [subject for subject, _ in places], [org_id for _, org_id in places]
        rows = await self._connection.fetch(_LOST, subjects, orgs) if places else []
        return {(row["subject"], row["org_id"]) for row in rows}
