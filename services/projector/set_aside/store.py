"""The table `set_aside`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from oa_platform.postgres.pool import Connection, Postgres
from oa_runlog.wire import StoredEvent
from services.projector.set_aside.app import WaitingRun

_RUNS = """
SELECT DISTINCT run_id, partition FROM projection.set_aside
WHERE version = $1 AND run_id <> ALL ($2::text[]) ORDER BY run_id LIMIT $3
"""
"""Runs of which entries wait, without some."""

_HELD = "SELECT DISTINCT run_id FROM projection.set_aside WHERE version = $1 AND run_id = ANY ($2::text[])"
"""The runs among some of which entries wait."""

_COUNT = "SELECT count(DISTINCT run_id) FROM projection.set_aside WHERE version = $1"
"""The number of runs of which entries wait."""

_ADD = """
INSERT INTO projection.set_aside (version, run_id, seq, partition, entry)
SELECT $1, run_id, seq, $2, entry FROM unnest($3::text[], $4::bigint[], $5::bytea[]) AS added (run_id, seq, entry)
"""
"""Stores entries."""

_FIRST = """
SELECT run_id, seq, entry FROM projection.set_aside WHERE version = $1 AND run_id = $2 ORDER BY seq LIMIT $3
"""
"""A run's oldest waiting entries, straight from the primary key."""

_REMOVE = "DELETE FROM projection.set_aside WHERE version = $1 AND run_id = $2 AND seq <= $3"
"""Removes what has been applied."""


class PostgresSetAside:
    """`app.SetAsideStore` for one version of the projection."""

    def __init__(self, postgres: Postgres, version: int) -> None:
        self._postgres = postgres
        self._version = version

    async def runs(self, without: Collection[str], limit: int) -> list[WaitingRun]:
        """See SetAsideStore."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_RUNS, self._version, list(without), limit)
        return [WaitingRun(row["run_id"], row["partition"]) for row in rows]


class PostgresSetAsideWriter:
    """`app.SetAsideWriter` on one connection that has a transaction open."""

    def __init__(self, connection: Connection, version: int) -> None:
        self._connection = connection
        self._version = version

    async def held(self, run_ids: Collection[str]) -> set[str]:
        """See SetAsideWriter."""
        rows = await self._connection.fetch(_HELD, self._version, list(run_ids))
        return {row["run_id"] for row in rows}

    async def has_room(self, max_runs: int) -> bool:
        """See SetAsideWriter."""
        number: int = await self._connection.fetchval(_COUNT, self._version)
        return number < max_runs

    async def add(self, partition: int, entries: Sequence[StoredEvent]) -> None:
        """See SetAsideWriter."""
        if not entries:
            return
        run_ids, seqs, data = zip(*((one.run_id, one.seq, one.data) for one in entries), strict=True)
        await self._connection.execute(_ADD, self._version, partition, run_ids, seqs, data)

    async def first(self, run_id: str, limit: int) -> list[StoredEvent]:
        """See SetAsideWriter."""
        rows = await self._connection.fetch(_FIRST, self._version, run_id, limit)
        return [StoredEvent(row["run_id"], row["seq"], row["entry"]) for row in rows]

    async def remove(self, run_id: str, up_to_seq: int) -> None:
        """See SetAsideWriter."""
        await self._connection.execute(_REMOVE, self._version, run_id, up_to_seq)
