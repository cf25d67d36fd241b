"""Read models and checkpoints: what a batch's transaction does, statement by statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from oa_platform.postgres.pool import Connection, Postgres
from services.projector.app.ports import Checkpoint, CheckpointMoved, JournalRow
from services.projector.domain.summaries import Codec, Drift, JournalEntry, StoredSummary, SummaryWrite
from services.projector.store import sql

PROJECTION = "run_summaries"
VERSION = 1
"""Raised when the code gives other documents for the same events: a new version is built beside the old one."""


class PgTransaction:
    """`app.ports.Transaction` on one connection that has one open."""

    def __init__(self, connection: Connection, codec: Codec, projection: str, version: int) -> None:
        self._connection = connection
        self._codec = codec
        self._projection = projection
        self._version = version

    async def advance(self, old: Checkpoint, position: int) -> None:
        """Compare-and-set on (projection, version, partition, log epoch, old position)."""
        moved = await self._connection.fetchval(
            sql.ADVANCE, old.projection, old.version, old.partition, old.log_epoch, old.position, position
        )
        if moved is None:
            raise CheckpointMoved(f"partition {old.partition} is not at {old.position}")

    async def read(self, run_ids: Collection[str]) -> dict[str, StoredSummary]:
        """No lock is needed: a run lives in one partition, and `advance` holds that."""
        rows = await self._connection.fetch(sql.READ_SUMMARIES, self._version, list(run_ids))
        return {row["run_id"]: StoredSummary(self._codec.decode(row["document"]), row["summary_hash"]) for row in rows}

    async def write(self, writes: Sequence[SummaryWrite]) -> None:
        """One statement for all."""
        if not writes:
            return
        summaries = [write.summary for write in writes]
        written = await self._connection.fetch(
            sql.WRITE_SUMMARIES,
            self._version,
            [summary.run_id for summary in summaries],
            [summary.user_id for summary in summaries],
            [summary.org_id for summary in summaries],
            [summary.status.value for summary in summaries],
            [summary.latest_seq for summary in summaries],
            [write.document for write in writes],
            [write.summary_hash for write in writes],
        )
        if len(written) != len(writes):
            raise CheckpointMoved("a newer summary stands where this batch would write")

    async def record(self, drifts: Sequence[Drift]) -> None:
        """Kept apart from the read model, which stays as it is."""
        versioned = (self._projection, self._version)
        await self._connection.executemany(
            sql.RECORD_DRIFT,
            [
                (*versioned, drift.run_id, drift.seq, drift.stored_hash, drift.computed_hash, drift.computed_document)
                for drift in drifts
            ],
        )

    async def append(self, entries: Sequence[JournalEntry]) -> list[JournalRow]:
        """Raise the heads, then number the entries down from them."""
        by_topic: defaultdict[str, list[JournalEntry]] = defaultdict(list)
        for entry in entries:
            by_topic[entry.topic].append(entry)
        heads = await self._raise_heads({topic: len(listed) for topic, listed in by_topic.items()})
        numbered = [
            (entry, heads[topic] - len(listed) + place)
            for topic, listed in sorted(by_topic.items())
            for place, entry in enumerate(listed, start=1)
        ]
        await self._connection.execute(
            sql.APPEND_JOURNAL,
            [entry.topic for entry, _ in numbered],
            [seq for _, seq in numbered],
            [entry.run_id for entry, _ in numbered],
            [entry.payload for entry, _ in numbered],
        )
        return [JournalRow(entry.topic, seq, entry.payload) for entry, seq in numbered]

    async def _raise_heads(self, added: Mapping[str, int]) -> dict[str, int]:
        rows = await self._connection.fetch(sql.RAISE_HEADS, list(added), list(added.values()))
        return {row["topic"]: row["head"] for row in rows}


class PgProjectionStore:
    """`app.ports.ProjectionStore`."""

    def __init__(self, postgres: Postgres, codec: Codec, projection: str = PROJECTION, version: int = VERSION) -> None:
        self._postgres = postgres
        self._codec = codec
        self.projection = projection
        self.version = version

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PgTransaction]:
        """READ COMMITTED is enough: the checkpoint's row lock makes the partition ours."""
        async with self._postgres.transaction() as connection:
            yield PgTransaction(connection, self._codec, self.projection, self.version)

    async def checkpoints(self, log_epoch: str, partitions: Collection[int]) -> dict[int, Checkpoint]:
        """Existing ones are returned with the epoch they have, whatever `log_epoch` is: the caller compares."""
        wanted = sorted(partitions)
        async with self._postgres.acquire() as connection:
            await connection.execute(sql.ENSURE_CHECKPOINTS, self.projection, self.version, log_epoch, wanted)
            rows = await connection.fetch(sql.CHECKPOINTS, self.projection, self.version, wanted)
        return {row["partition"]: Checkpoint(**row) for row in rows}
