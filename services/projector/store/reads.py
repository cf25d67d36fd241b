"""The read models, for readers."""

from __future__ import annotations

import asyncpg

from services.projector.app.ports import Checkpoint, SummaryQuery
from services.projector.domain.run_summary import RunSummary
from services.projector.domain.summaries import Codec
from services.projector.store import sql
from services.projector.store.projections import VERSION, unavailable_when_away


class PgReadStore:
    """`app.ports.ReadStore` on a pool, for the version of the projection that is served."""

    def __init__(self, pool: asyncpg.Pool, codec: Codec, version: int = VERSION) -> None:
        self._pool = pool
        self._codec = codec
        self._version = version

    async def summary(self, run_id: str) -> RunSummary | None:
        """By primary key."""
        with unavailable_when_away():
            document = await self._pool.fetchval(sql.SUMMARY, self._version, run_id)
        return None if document is None else self._codec.decode(document)

    async def summaries(self, query: SummaryQuery) -> list[RunSummary]:
        """Keyset paging: the cost of a page does not grow with its distance from the first."""
        status = None if query.status is None else query.status.value
        with unavailable_when_away():
            rows = await self._pool.fetch(
                sql.SUMMARIES, self._version, query.org_id, query.user_id, status, query.before, query.limit
            )
        return [self._codec.decode(row["document"]) for row in rows]

    async def all_checkpoints(self) -> list[Checkpoint]:
        """Sorted by projection, version and partition."""
        with unavailable_when_away():
            rows = await self._pool.fetch(sql.ALL_CHECKPOINTS)
        return [Checkpoint(**row) for row in rows]
