"""The records of the archive in Postgres, and the only way for events to leave the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from oa_base.refusal import Refusal
from oa_platform.postgres.columns import columns
from oa_platform.postgres.pool import Postgres
from services.runtime.archive.app.archive import Archived
from services.runtime.archive.store import sql


class PostgresArchiveRecords:
    """The records of the archive."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def hold(self, holder: str, lease_ms: int) -> bool:
        """Take or keep the lease for `lease_ms`; return whether `holder` has it."""
        async with self._postgres.acquire() as connection:
            return bool(await connection.fetchval(sql.HOLD_ARCHIVER, holder, lease_ms))

    async def due(self, ages_s: Mapping[str, int], except_for: Sequence[str], limit: int) -> list[str]:
        """Finished runs of these classes that are as old as their class says, the longest due first."""
        classes = columns(ages_s.items(), 2)
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_DUE_RUNS, *classes, list(except_for), limit)
        return [row["run_id"] for row in rows]

    async def find(self, run_id: str) -> Archived | None:
        """The archive's record of a run."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_ARCHIVED, run_id)
        return None if row is None else Archived(**dict(row))

    async def find_all(self, run_ids: Sequence[str]) -> dict[str, Archived]:
        """Run -> the archive's record of it; runs that are not archived are left out."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_ARCHIVED_RUNS, list(run_ids))
        return {row["run_id"]: Archived(**dict(row)) for row in rows}

    async def archive(self, run: Archived, stored_bytes: int, chain_head: bytes, timeout_ms: int) -> bool:
        """Record the run and prune its events, both or neither; return False if that was done before.

        Raises Refusal archive_damaged when the artifact is not that of the run.
        """
        arguments = (run.run_id, run.sha256, run.bytes, stored_bytes, run.object, chain_head)
        async with self._postgres.transaction() as connection:
            await connection.fetchval(sql.SET_STATEMENT_TIMEOUT, str(timeout_ms))
            try:
                done = await connection.fetchval(sql.ARCHIVE_RUN, *arguments, timeout=timeout_ms / 1000 + 1)
            except asyncpg.RestrictViolationError as error:
                raise Refusal("archive_damaged", str(error), metadata={"run_id": run.run_id}) from None
        return bool(done)
