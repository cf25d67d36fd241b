"""The read models, for readers."""

from __future__ import annotations

from oa_platform.postgres.pool import Postgres
from services.projector.app.ports import Checkpoint, SummaryQuery
from services.projector.domain.run_summary import RunSummary
from services.projector.domain.summaries import Codec
from services.projector.store import sql
from services.projector.store.projections import VERSION


class PgReadStore:
    """`app.ports.ReadStore`, for the version of the projection that is served."""

    def __init__(self, postgres: Postgres, codec: Codec, version: int = VERSION) -> None:
        self._postgres = postgres
        self._codec = codec
        self._version = version

    async def summary(self, run_id: str) -> RunSummary | None:
        """By primary key."""
        async with self._postgres.acquire() as connection:
            document = await connection.fetchval(sql.SUMMARY, self._version, run_id)
        return None if document is None else self._codec.decode(document)

    async def summaries(self, query: SummaryQuery) -> list[RunSummary]:
        """Keyset paging: the cost of a page does not grow with its distance from the first."""
        status = None if query.status is None else query.status.value
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                sql.SUMMARIES, self._version, query.org_id, query.user_id, status, query.before, query.limit
            )
        return [self._codec.decode(row["document"]) for row in rows]

    async def all_checkpoints(self) -> list[Checkpoint]:
        """Sorted by projection, version and partition."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.ALL_CHECKPOINTS)
        return [Checkpoint(**row) for row in rows]
