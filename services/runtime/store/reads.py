"""The log, read: pages of partitions and runs, runs, receipts, and what the installation is."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Record

from oa_platform.postgres.pool import Postgres
from oa_runlog import wire
from oa_runlog.events import EventType
from oa_runlog.proof.receipt import SignedReceipt
from services.runtime.app.ports import Installation, RunRecord, RunStanding
from services.runtime.domain.batch import Head, LogRecord
from services.runtime.domain.whole_log import ArchivedEntry, Entry
from services.runtime.store import sql, sql_archive
from services.runtime.store.rows import state_of


class PostgresReads:
    """Reads outside of the sequencers' transactions."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def installation(self) -> Installation:
        """What was fixed when this installation was made."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_INSTALLATION)
        assert row is not None  # the migration inserts it
        return Installation(row["partitions"], row["receipt_log"])

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
        """The bodies of the next rows; none unless these are the next entries and together within so many bytes."""
        async with self._postgres.acquire() as connection:
            page = await connection.fetchrow(sql.READ_LOG_BYTES, partition, after, max_entries, max_bytes)
        assert page is not None  # it aggregates
        bodies: list[bytes] = page["bodies"] or []
        return bodies if (page["first"], page["last"]) == (after + 1, after + len(bodies)) else ()

    async def floor(self, partition: int) -> int:
        """The highest position that was pruned."""
        async with self._postgres.acquire() as connection:
            return int(await connection.fetchval(sql_archive.READ_FLOOR, partition) or 0)

    async def whole_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[Entry]:
        """The next `max_entries` positions, in order, rows only as far as they are within so many bytes."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql_archive.READ_WHOLE_PAGE, partition, after, max_entries, max_bytes)
        return [_entry(row) for row in rows]

    async def run_page(self, run_id: str, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Consecutive events of a run: seq and stored bytes."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_RUN_PAGE, run_id, after_seq, max_events, max_bytes)
        return [(row["seq"], row["body"]) for row in rows]

    async def standings(self, run_ids: Sequence[str]) -> list[RunStanding]:
        """Where these runs stand; those that don't exist are left out."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_STANDINGS, run_ids)
        return [RunStanding(**row) for row in rows]

    async def chain_at(self, run_id: str, seq: int) -> bytes | None:
        """The chain value at an event of a run; None when it is not in the log, and is not the newest one."""
        async with self._postgres.acquire() as connection:
            chain: bytes | None = await connection.fetchval(sql.READ_CHAIN, run_id, seq)
        return chain

    async def run(self, run_id: str) -> RunRecord | None:
        """A run."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_RUN, run_id)
        if row is None:
            return None
        state = state_of(row)
        return RunRecord(state, wire.decode_spec(row["spec"]), state.latest_seq if row["archived"] else 0)

    async def receipt(self, run_id: str) -> SignedReceipt | None:
        """The receipt of a run."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_RECEIPT, run_id)
        return None if row is None else SignedReceipt(**dict(row))

    async def receipt_keys(self) -> list[tuple[str, bytes]]:
        """Key ids and public keys, the newest first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_RECEIPT_KEYS)
        return [(row["key_id"], row["public_key"]) for row in rows]

    async def add_receipt_key(self, key_id: str, public_key: bytes) -> None:
        """Note a key that receipts are signed with from now on."""
        async with self._postgres.acquire() as connection:
            await connection.execute(sql.INSERT_RECEIPT_KEY, key_id, public_key)


def _record(row: Record) -> LogRecord:
    return LogRecord(row["position"], row["run_id"], row["seq"], EventType(row["type"]), row["body"], row["chain"])


def _entry(row: Record) -> Entry:
    if row["body"] is None:
        return ArchivedEntry(row["position"], row["run_id"], row["seq"])
    return _record(row)
