"""The tables `topic_heads`, `journal` and `journal_epoch`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from oa_platform.postgres.pool import Connection, Postgres
from services.projector.journal.domain import JournalEntry, JournalRow, TopicPosition, added, numbered

_EPOCH = "SELECT epoch FROM projection.journal_epoch"
"""The lineage of all topics. Written once, by the migration that made the journal."""

_POSITIONS = "SELECT topic, floor, head FROM projection.topic_heads WHERE topic = ANY ($1::text[])"
"""Where topics stand."""

_PAGE = """
SELECT topic, seq, payload FROM projection.journal WHERE topic = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""
"""A page of a topic's past, straight from the primary key."""

_RAISE_HEADS = """
INSERT INTO projection.topic_heads AS stored (topic, head)
SELECT topic, added FROM unnest($1::text[], $2::bigint[]) AS raised (topic, added) ORDER BY topic COLLATE "C"
ON CONFLICT (topic) DO UPDATE SET head = stored.head + excluded.head
RETURNING topic, head
"""
"""Make room for new entries. Rows are inserted, and so locked, in the order of their names: two batches that share
topics wait for each other but never in a circle. The lock is held until commit, which is what makes seqs gap-free."""

_APPEND = """
INSERT INTO projection.journal (topic, seq, run_id, payload)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[])
"""
"""Store numbered entries."""


class PostgresJournalStore:
    """`app.JournalStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def epoch(self) -> str:
        """See JournalStore."""
        async with self._postgres.acquire() as connection:
            return str(await connection.fetchval(_EPOCH))

    async def positions(self, topics: Collection[str]) -> dict[str, TopicPosition]:
        """One query for all."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_POSITIONS, list(topics))
        return {row["topic"]: TopicPosition(row["floor"], row["head"]) for row in rows}

    async def page(self, topic: str, after_seq: int, limit: int) -> list[JournalRow]:
        """See JournalStore."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_PAGE, topic, after_seq, limit)
        return [JournalRow(row["topic"], row["seq"], row["payload"]) for row in rows]


class PostgresJournalWriter:
    """`app.JournalWriter` on one connection that has a transaction open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, entries: Sequence[JournalEntry]) -> list[JournalRow]:
        """Raise the heads, then number the entries down from them."""
        raised = added(entries)
        rows = await self._connection.fetch(_RAISE_HEADS, list(raised), list(raised.values()))
        placed = numbered(entries, {row["topic"]: row["head"] for row in rows})
        await self._connection.execute(
            _APPEND,
            [one.entry.topic for one in placed],
            [one.seq for one in placed],
            [one.entry.about for one in placed],
            [one.entry.payload for one in placed],
        )
        return [JournalRow(one.entry.topic, one.seq, one.entry.payload) for one in placed]
