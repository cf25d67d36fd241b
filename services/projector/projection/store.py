"""The table `checkpoints`."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from oa_platform.postgres.pool import Connection, Postgres
from services.projector.projection.app import CheckpointMoved
from services.projector.projection.domain import Checkpoint

_ENSURE = """
INSERT INTO projection.checkpoints (projection, version, partition, log_epoch)
SELECT $1, $2, partition, $3 FROM unnest($4::int[]) AS partition
ON CONFLICT DO NOTHING
"""
"""Creates the checkpoints of partitions that have none. A partition that was never read begins at position 0."""

_OF_PARTITIONS = """
SELECT projection, version, partition, log_epoch, position FROM projection.checkpoints
WHERE projection = $1 AND version = $2 AND partition = ANY ($3::int[])
"""
"""Where one projection stands."""

_ALL = """
SELECT projection, version, partition, log_epoch, position FROM projection.checkpoints
ORDER BY projection, version, partition
"""
"""Where every projection stands."""

_ADVANCE = """
UPDATE projection.checkpoints SET position = $6, updated_at = now()
WHERE projection = $1 AND version = $2 AND partition = $3 AND log_epoch = $4 AND position = $5
RETURNING position
"""
"""Moves a checkpoint on by compare-and-set. The row stays locked until the end of the transaction, so a partition has
one writer at a time."""


_LOCK = """
SELECT FROM projection.checkpoints WHERE projection = $1 AND version = $2 AND partition = $3 FOR UPDATE
"""
"""Keeps the partition's writers out until the end of the transaction."""

_LOCK_ALL = """
SELECT FROM projection.checkpoints WHERE projection = $1 AND version = $2 ORDER BY partition FOR UPDATE
"""
"""The same for all partitions."""


class PostgresCheckpointStore:
    """`app.CheckpointStore` for one version of one projection."""

    def __init__(self, postgres: Postgres, projection: str, version: int) -> None:
        self._postgres = postgres
        self._projection = projection
        self._version = version

    async def ensure(self, log_epoch: str, partitions: Collection[int]) -> dict[int, Checkpoint]:
        """Existing checkpoints are returned with their own epoch, whatever `log_epoch` is: the caller compares."""
        wanted = sorted(partitions)
        async with self._postgres.acquire() as connection:
            await connection.execute(_ENSURE, self._projection, self._version, log_epoch, wanted)
            rows = await connection.fetch(_OF_PARTITIONS, self._projection, self._version, wanted)
        return {row["partition"]: _checkpoint(row) for row in rows}

    async def all(self) -> list[Checkpoint]:
        """See CheckpointStore."""
        async with self._postgres.acquire() as connection:
            return [_checkpoint(row) for row in await connection.fetch(_ALL)]


class PostgresCheckpointWriter:
    """`app.CheckpointWriter` on one connection that has a transaction open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def advance(self, old: Checkpoint, position: int) -> None:
        """Compare-and-set on (projection, version, partition, log epoch, old position)."""
        moved = await self._connection.fetchval(
            _ADVANCE, old.projection, old.version, old.partition, old.log_epoch, old.position, position
        )
        if moved is None:
            raise CheckpointMoved(f"partition {old.partition} is not at {old.position}")

    async def lock(self, projection: str, version: int, partition: int) -> None:
        """See CheckpointWriter."""
        await self._connection.execute(_LOCK, projection, version, partition)

    async def lock_all(self, projection: str, version: int) -> None:
        """See CheckpointWriter."""
        await self._connection.execute(_LOCK_ALL, projection, version)


def _checkpoint(row: asyncpg.Record) -> Checkpoint:
    return Checkpoint(row["projection"], row["version"], row["partition"], row["log_epoch"], row["position"])
