"""The state of workers, in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from oa_platform.postgres.pool import Postgres
from oa_runlog.workers import WorkerStatus
from services.runtime.worker_watch.domain import StandingWorker

_READ_STANDING = """
SELECT w.worker_id, w.service_account_id, w.org_id, w.name, w.adapters, w.max_concurrent_runs, w.status,
    (extract(epoch FROM w.attached_at) * 1000000)::bigint AS attached_us,
    ARRAY(SELECT r.run_id FROM runtime.runs r
          WHERE r.worker_id = w.worker_id AND r.status IN ('running', 'canceling') AND NOT r.fenced
          ORDER BY r.run_id) AS run_ids
FROM runtime.workers w
WHERE w.status IN ('starting', 'running', 'draining') OR w.worker_id = ANY ($1::text[])
ORDER BY w.worker_id
"""
"""Workers that have not ended, and other workers by their ids ($1), with the runs that they hold."""


class PostgresStandingWorkers:
    """See `app.StandingWorkers`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def standing(self, worker_ids: Sequence[str]) -> list[StandingWorker]:
        """See StandingWorkers."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_READ_STANDING, worker_ids)
        return [_standing(row) for row in rows]


def _standing(row: asyncpg.Record) -> StandingWorker:
    return StandingWorker(
        row["worker_id"],
        row["service_account_id"],
        row["org_id"],
        row["name"],
        tuple(row["adapters"]),
        row["max_concurrent_runs"],
        WorkerStatus(row["status"]),
        row["attached_us"] * 1000,
        tuple(row["run_ids"]),
    )
