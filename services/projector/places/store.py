"""Places in Postgres."""

from __future__ import annotations

from collections.abc import Collection

from oa_platform.auth.revocations import Revocation
from oa_platform.postgres.pool import Connection
from oa_platform.process.places import remember
from services.projector.places.domain import Place

_LOST = """
SELECT subject, org_id FROM unnest($1::text[], $2::text[]) AS asked (subject, org_id)
WHERE EXISTS (SELECT FROM projection.lost_places(asked.subject, asked.org_id))
"""
"""The lost ones among the places ($1, $2)."""


class PostgresPlaceWriter:
    """`app.PlaceWriter` on one connection that has a transaction open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def remember(self, change: Revocation) -> bool:
        """See PlaceWriter."""
        return await remember(self._connection, "projection", change)

    async def lost(self, places: Collection[Place]) -> set[Place]:
        """See PlaceWriter."""
        subjects, orgs = [subject for subject, _ in places], [org_id for _, org_id in places]
        rows = await self._connection.fetch(_LOST, subjects, orgs) if places else []
        return {(row["subject"], row["org_id"]) for row in rows}
