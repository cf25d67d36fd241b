"""The topics' journals, for those who watch and replay."""

from __future__ import annotations

from collections.abc import Collection

from oa_platform.postgres.pool import Postgres
from services.projector.app.ports import JournalRow, TopicPosition
from services.projector.store import sql


class PgJournalStore:
    """`app.ports.JournalStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def epoch(self) -> str:
        """Written once, by the migration that made the journal."""
        async with self._postgres.acquire() as connection:
            return str(await connection.fetchval(sql.EPOCH))

    async def positions(self, topics: Collection[str]) -> dict[str, TopicPosition]:
        """One query for all."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.POSITIONS, list(topics))
        return {row["topic"]: TopicPosition(row["floor"], row["head"]) for row in rows}

    async def page(self, topic: str, after_seq: int, limit: int) -> list[JournalRow]:
        """Straight from the primary key."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.PAGE, topic, after_seq, limit)
        return [JournalRow(**row) for row in rows]
