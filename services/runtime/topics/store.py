"""Where runs stand, in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

from oa_platform.postgres.pool import Postgres
from services.runtime.topics.domain import RunStanding

_READ_STANDINGS = """
SELECT run_id, user_id, org_id, latest_seq, CASE WHEN archived THEN latest_seq ELSE 0 END AS floor
FROM runtime.runs WHERE run_id = ANY ($1::text[])
"""
"""Where runs ($1) stand."""

_READ_CHAIN = """
SELECT coalesce((SELECT chain FROM runtime.events WHERE run_id = $1 AND seq = $2),
                (SELECT chain_head FROM runtime.runs WHERE run_id = $1 AND latest_seq = $2))
"""
"""The chain value of a run ($1) at a seq ($2). The newest event's stays with the run when its events have moved to the
archive."""


class PostgresStandings:
    """Where runs stand, outside of the sequencers' transactions."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def standings(self, run_ids: Sequence[str]) -> list[RunStanding]:
        """Where these runs stand; those that don't exist are left out."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_READ_STANDINGS, run_ids)
        return [RunStanding(**row) for row in rows]

    async def chain_at(self, run_id: str, seq: int) -> bytes | None:
        """The chain value at an event of a run; None when it is not in the log, and is not the newest one."""
        async with self._postgres.acquire() as connection:
            chain: bytes | None = await connection.fetchval(_READ_CHAIN, run_id, seq)
        return chain
