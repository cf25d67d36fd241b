"""Where runs and workers stand, in Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import asyncpg

from oa_platform.postgres.pool import Postgres
from oa_runlog.workers import WorkerStatus
from services.runtime.topics.domain import RunStanding, WorkerEvent, WorkerStanding

_READ_STANDINGS = """
SELECT run_id, user_id, org_id, latest_seq, CASE WHEN archived THEN latest_seq ELSE 0 END AS floor
FROM runtime.runs WHERE run_id = ANY ($1::text[])
"""
"""Where runs ($1) stand."""

_READ_CHAIN = """
SELECT coalesce((SELECT chain FROM runtime.events WHERE run_id = $1 AND seq = $2),
                (SELECT chain_head FROM runtime.runs WHERE run_id = $1 AND latest_seq = $2))
"""
"""The chain value of a run ($1) at a seq ($2). That of the newest event stays with the run when the events have moved
to the archive."""


_READ_WORKERS = """
SELECT worker_id, org_id, coalesce(head, 0) AS head, coalesce(floor, 0) AS floor
FROM runtime.workers LEFT JOIN runtime.worker_topics USING (worker_id) WHERE worker_id = ANY ($1::text[])
"""
"""Where the events of workers ($1) stand. A worker that has not changed since events began to be recorded has none."""

_READ_WORKER_EVENTS = """
SELECT worker_id, seq, (extract(epoch FROM recorded_at) * 1000000)::bigint AS recorded_us, status, name, adapters,
    max_concurrent_runs
FROM runtime.worker_events WHERE worker_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""
"""Events of a worker ($1) after a seq ($2)."""


_COMMIT_CHECK = """
WITH counted AS (UPDATE runtime.delivery_checks SET number = number + 1 RETURNING number)
SELECT pg_notify($1, number::text) FROM counted
"""
"""Commits the number of a delivery check and tells it on a channel ($1), just as commits of the log are told."""


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
        """The chain value at an event of a run; None if the event is neither in the log nor the newest one."""
        async with self._postgres.acquire() as connection:
            chain: bytes | None = await connection.fetchval(_READ_CHAIN, run_id, seq)
        return chain


class PostgresDeliveryChecks:
    """Numbers of delivery checks."""

    def __init__(self, postgres: Postgres, channel: str) -> None:
        """`channel`: the channel on which they are told."""
        self._postgres = postgres
        self._channel = channel

    async def commit(self) -> None:
        """Commit the next number; every replica hears of it. Raises Refusal when the database is away."""
        async with self._postgres.acquire() as connection:
            await connection.execute(_COMMIT_CHECK, self._channel)


class PostgresWorkerEvents:
    """`app.WorkerEvents`; `encode` makes the document of an event."""

    def __init__(self, postgres: Postgres, encode: Callable[[WorkerEvent], bytes]) -> None:
        self._postgres = postgres
        self._encode = encode

    async def standings(self, worker_ids: Sequence[str]) -> list[WorkerStanding]:
        """See WorkerEvents."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_READ_WORKERS, worker_ids)
        return [WorkerStanding(**row) for row in rows]

    async def page(self, worker_id: str, after_seq: int, max_events: int) -> list[tuple[int, bytes]]:
        """See WorkerEvents."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_READ_WORKER_EVENTS, worker_id, after_seq, max_events)
        return [(row["seq"], self._encode(_worker_event(row))) for row in rows]


def _worker_event(row: asyncpg.Record) -> WorkerEvent:
    return WorkerEvent(
        row["worker_id"],
        row["seq"],
        row["recorded_us"] * 1000,
        WorkerStatus(row["status"]),
        row["name"],
        tuple(row["adapters"]),
        row["max_concurrent_runs"],
    )
