"""The log of receipts in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from oa_platform.postgres.columns import columns
from oa_platform.postgres.pool import Connection, Postgres
from oa_runlog.proof.merkle import HASH_BYTES, Frontier, Node
from oa_runlog.proof.notes import join_notes
from oa_runlog.proof.receipt import SignedReceipt
from services.runtime.receipts.app.receipt_log import Backlog, StoredCheckpoint
from services.runtime.receipts.domain import Growth
from services.runtime.receipts.store import sql


class PostgresReceiptLog:
    """Reads the log of receipts, and merges into it."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def merging(self) -> AsyncIterator[PostgresMerge | None]:
        """A transaction with the lock; None when another replica has it."""
        async with self._postgres.transaction() as connection:
            row = await connection.fetchrow(sql.LOCK_RECEIPT_LOG)
            yield None if row is None else PostgresMerge(connection, _frontier(row["size"], row["frontier"]))

    async def waiting(self, limit: int, left_out: Sequence[str]) -> Sequence[str]:
        """The runs whose receipts are not in the log, the oldest first."""
        async with self._postgres.acquire() as connection:
            return [row["run_id"] for row in await connection.fetch(sql.READ_WAITING, limit, left_out)]

    async def backlog(self) -> Backlog:
        """The receipts that wait to be merged."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_BACKLOG)
        assert row is not None  # it counts
        return Backlog(row["receipts"], row["oldest_s"])

    async def checkpoint(self) -> StoredCheckpoint | None:
        """The newest checkpoint; None before the first merge."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_CHECKPOINT)
        return StoredCheckpoint(rows[0]["size"], join_notes([row["note"] for row in rows])) if rows else None

    async def leaf_index(self, run_id: str) -> int | None:
        """Where the run's receipt is in the log."""
        async with self._postgres.acquire() as connection:
            index: int | None = await connection.fetchval(sql.READ_LEAF_INDEX, run_id)
        return index

    async def nodes(self, nodes: Sequence[Node]) -> Mapping[Node, bytes]:
        """Hashes of stored nodes."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_NODES, *columns(nodes, 2))
        return {Node(row["level"], row["node_index"]): row["hash"] for row in rows}


class PostgresMerge:
    """One transaction that holds the log's lock."""

    def __init__(self, connection: Connection, frontier: Frontier) -> None:
        self._connection = connection
        self.frontier = frontier

    async def receipts(self, run_ids: Sequence[str]) -> Sequence[SignedReceipt]:
        """The receipts of those of these runs that wait, the oldest first."""
        return [SignedReceipt(**dict(row)) for row in await self._connection.fetch(sql.READ_UNMERGED, run_ids)]

    async def has_checkpoint(self, size: int, key_id: str) -> bool:
        """Whether this key has signed the log of this size."""
        return bool(await self._connection.fetchval(sql.HAS_CHECKPOINT, size, key_id))

    async def grow(self, growth: Growth) -> None:
        """Store the growth."""
        nodes = [(node.level, node.offset, value) for node, value in growth.nodes]
        await self._connection.execute(sql.INSERT_LEAVES, growth.first_leaf, growth.run_ids)
        await self._connection.execute(sql.INSERT_NODES, *columns(nodes, 3))
        await self._connection.execute(sql.DELETE_UNMERGED, growth.run_ids)
        frontier = growth.frontier
        await self._connection.execute(sql.MOVE_RECEIPT_LOG, frontier.size, b"".join(frontier.hashes))

    async def add_checkpoint(self, size: int, key_id: str, note: bytes) -> None:
        """Store a signed checkpoint."""
        await self._connection.execute(sql.INSERT_CHECKPOINT, size, key_id, note)


def _frontier(size: int, hashes: bytes) -> Frontier:
    starts = range(0, len(hashes), HASH_BYTES)
    return Frontier(size, tuple(hashes[start : start + HASH_BYTES] for start in starts))
