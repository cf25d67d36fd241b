"""The topics' journals, for those who watch and replay."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from services.projector.app.ports import JournalRow, TopicPosition
from services.projector.store import sql
from services.projector.store.projections import unavailable_when_away


class PgJournalStore:
    """`app.ports.JournalStore` on a pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def epoch(self) -> str:
        """Written once, by the migration that made the journal."""
        with unavailable_when_away():
            return str(await self._pool.fetchval(sql.EPOCH))

    async def positions(self, topics: Collection[str]) -> dict[str, TopicPosition]:
        """One query for all."""
        with unavailable_when_away():
            rows = await self._pool.fetch(sql.POSITIONS, list(topics))
        return {row["topic"]: TopicPosition(row["floor"], row["head"]) for row in rows}

    async def page(self, topic: str, after_seq: int, limit: int) -> list[JournalRow]:
        """Straight from the primary key."""
        with unavailable_when_away():
            rows = await self._pool.fetch(sql.PAGE, topic, after_seq, limit)
        return [JournalRow(**row) for row in rows]
