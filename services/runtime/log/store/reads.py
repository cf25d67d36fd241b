"""Reads of the log: heads, pages of partitions and of runs, and runs."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Record

from oa_platform.postgres.pool import Postgres
from oa_runlog import wire
from services.runtime.authority.domain import Head
from services.runtime.log.domain.records import LogRecord, RunRecord
from services.runtime.log.store import sql
from services.runtime.log.store.rows import state_of


class PostgresReads:
    """Reads outside of the sequencers' transactions."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def heads(self) -> dict[int, Head]:
        """Partition -> its head."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_HEADS)
        return {row["partition"]: Head(row["position"], row["chain"] or b"") for row in rows}

    async def log_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[LogRecord]:
        """The rows of a partition after a position, in order; some may be missing."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_LOG_PAGE, partition, after, max_entries, max_bytes)
        return [_record(row) for row in rows]

    async def bytes_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[bytes]:
        """The bodies of the next rows; none unless these are the next entries and together within `max_bytes`."""
        async with self._postgres.acquire() as connection:
            page = await connection.fetchrow(sql.READ_LOG_BYTES, partition, after, max_entries, max_bytes)
        assert page is not None  # it aggregates
        bodies: list[bytes] = page["bodies"] or []
        return bodies if (page["first"], page["last"]) == (after + 1, after + len(bodies)) else ()

    async def run_page(self, run_id: str, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Consecutive events of a run: seq and stored bytes."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_RUN_PAGE, run_id, after_seq, max_events, max_bytes)
        return [(row["seq"], row["body"]) for row in rows]

    async def events_of_types(
        self, run_id: str, after_seq: int, types: Sequence[str], max_events: int, max_bytes: int
    ) -> list[bytes]:
        """Events of a run after a seq, in order, as they are stored; of these types only, unless none is named."""
        if not types:
            return [data for _, data in await self.run_page(run_id, after_seq, max_events, max_bytes)]
        arguments = run_id, after_seq, max_events, max_bytes, list(set(types))
        async with self._postgres.acquire() as connection:
            if set(types) <= sql.INDEXED_TYPES:
                rows = await connection.fetch(sql.READ_RUN_INDEXED_TYPES, *arguments)
            else:
                rows = await connection.fetch(sql.READ_RUN_TYPES, *arguments)
        return [row["body"] for row in rows]

    async def newest_of_types(self, run_id: str, after_seq: int, types: Sequence[str]) -> bytes | None:
        """The newest event of a run after a seq, of these types only, unless none is named."""
        data: bytes | None
        arguments = run_id, after_seq, list(set(types))
        async with self._postgres.acquire() as connection:
            if types and set(types) <= sql.INDEXED_TYPES:
                data = await connection.fetchval(sql.READ_RUN_INDEXED_NEWEST, *arguments)
            else:
                data = await connection.fetchval(sql.READ_RUN_NEWEST, *arguments)
        return data

    async def run(self, run_id: str) -> RunRecord | None:
        """The run with this id."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_RUN, run_id)
        if row is None:
            return None
        state = state_of(row)
        return RunRecord(state, wire.decode_spec(row["spec"]), state.latest_seq if row["archived"] else 0)


def _record(row: Record) -> LogRecord:
    return LogRecord(row["position"], row["run_id"], row["seq"], row["type"], row["body"], row["chain"])
