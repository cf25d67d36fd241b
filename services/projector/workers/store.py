"""The table `workers`, and the turn to write it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from oa_khala.topics import Topic
from oa_platform.postgres.pool import Connection, Postgres
from services.projector.journal.app import JournalWriter
from services.projector.journal.domain import JournalRow
from services.projector.workers.app import Turn
from services.projector.workers.domain import PublishedWorker, ToldWorker, changes

_TAKE_TURN = "SELECT pg_try_advisory_lock(hashtext('projection.workers'))"
"""Take the turn for this connection, unless another one has it. The turn ends with the connection at the latest."""

_END_TURN = "SELECT pg_advisory_unlock(hashtext('projection.workers'))"
"""Give the turn back."""

_KNOWN = "SELECT worker_id FROM projection.workers ORDER BY worker_id"
"""Workers that have not ended."""

_STORED = "SELECT worker_id, org_id, document FROM projection.workers WHERE worker_id = ANY ($1::text[])"
"""What was last published of workers ($1)."""

_STAND = """
INSERT INTO projection.workers (worker_id, org_id, document)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
ON CONFLICT (worker_id) DO UPDATE SET org_id = excluded.org_id, document = excluded.document
"""
"""Store the state of workers."""

_ENDED = "DELETE FROM projection.workers WHERE worker_id = ANY ($1::text[])"
"""Forget workers that have ended."""


class PostgresTurn:
    """`app.Turn` on the connection that has it."""

    def __init__(self, connection: Connection, journal: JournalWriter) -> None:
        self._connection = connection
        self._journal = journal

    async def known(self) -> list[str]:
        """See Turn."""
        return [row["worker_id"] for row in await self._connection.fetch(_KNOWN)]

    async def store(self, told: Sequence[ToldWorker]) -> list[JournalRow]:
        """See Turn."""
        async with self._connection.transaction():
            rows = await self._connection.fetch(_STORED, [one.worker_id for one in told])
            news = changes({row["worker_id"]: PublishedWorker(row["org_id"], row["document"]) for row in rows}, told)
            if not news.standing and not news.ended:
                return []
            ids, orgs = [one.worker_id for one in news.standing], [one.org_id for one in news.standing]
            await self._connection.execute(_STAND, ids, orgs, [one.document for one in news.standing])
            await self._connection.execute(_ENDED, news.ended)
            return await self._journal.append(news.entries) if news.entries else []


class PostgresTurns:
    """`app.Turns`; `journal` writes to topics on a connection."""

    def __init__(self, postgres: Postgres, journal: Callable[[Connection], JournalWriter]) -> None:
        self._postgres = postgres
        self._journal = journal

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Turn | None]:
        """See Turns."""
        async with self._postgres.acquire() as connection:
            if not await connection.fetchval(_TAKE_TURN):
                yield None
                return
            try:
                yield PostgresTurn(connection, self._journal(connection))
            finally:
                if not connection.is_closed():
                    await connection.execute(_END_TURN)


_OF_ORG = """
SELECT coalesce((SELECT head FROM projection.topic_heads WHERE topic = $1), 0) AS head, ARRAY(
    SELECT document FROM projection.workers WHERE org_id = $2 ORDER BY worker_id DESC LIMIT $3
) AS documents
"""
"""An org's newest workers ($2, $3), and the head of its topic ($1) at the same moment."""


class PostgresWorkerDocuments:
    """`journal.app.Documents`: the workers of an org that have not ended."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def as_of_head(self, topic: Topic, limit: int) -> tuple[int, list[bytes]]:
        """See Documents."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(_OF_ORG, str(topic), topic.subject_id, limit)
        assert row is not None  # the statement always returns a row
        return row["head"], list(row["documents"])
