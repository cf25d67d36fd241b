"""The state of workers, in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from oa_platform.postgres.pool import Postgres
from oa_runlog.workers import WorkerStatus
from services.runtime.worker_watch.domain import StandingWorker

_READ_STANDING = """
SELECT w.worker_id, w.service_account_id, w.org_id, w.name, w.adapters, w.max_concurrent_runs, w.status,
    (extract(epoch FROM w.attached_at) * 1000000)::bigint AS attached_us
FROM runtime.workers w
WHERE w.status IN ('starting', 'running', 'draining') OR w.worker_id = ANY ($1::text[])
ORDER BY w.worker_id
"""
"""Workers that have not ended, and other workers by their ids ($1)."""

_READ_HELD = """
SELECT worker_id, array_agg(run_id ORDER BY run_id) AS run_ids FROM runtime.runs
WHERE status IN ('running', 'canceling') AND NOT fenced GROUP BY worker_id
"""
"""The runs that workers hold. They are read once, and not for each worker: Postgres expects hardly any, whatever their
number is, and would read all of them for each worker."""


class PostgresStandingWorkers:
    """See `app.StandingWorkers`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def standing(self, worker_ids: Sequence[str]) -> list[StandingWorker]:
        """See StandingWorkers."""
        async with (
            self._postgres.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            rows = await connection.fetch(_READ_STANDING, worker_ids)
            held = {row["worker_id"]: tuple(row["run_ids"]) for row in await connection.fetch(_READ_HELD)}
        return [_standing(row, held.get(row["worker_id"], ())) for row in rows]


def _standing(row: asyncpg.Record, run_ids: tuple[str, ...]) -> StandingWorker:
    return StandingWorker(
        row["worker_id"],
        row["service_account_id"],
        row["org_id"],
        row["name"],
        tuple(row["adapters"]),
        row["max_concurrent_runs"],
        WorkerStatus(row["status"]),
        row["attached_us"] * 1000,
        run_ids,
    )
