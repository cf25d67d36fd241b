"""Workers and leases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oa_platform.postgres import Postgres
from oa_runlog.state import WorkerStatus
from services.runtime.app.ports import LeaseRecord, WorkerRecord
from services.runtime.store import sql

_HIGHEST_EPOCH = 2**63 - 1
"""Of the column: a lease beyond it can be asked for and can't exist."""


class PostgresWorkers:
    """The worker store."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def worker(self, worker_id: str) -> WorkerRecord | None:
        """A worker."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_WORKER, worker_id)
        if row is None:
            return None
        return WorkerRecord(
            worker_id=row["worker_id"],
            service_account_id=row["service_account_id"],
            org_id=row["org_id"],
            name=row["name"],
            adapters=tuple(row["adapters"]),
            max_concurrent_runs=row["max_concurrent_runs"],
            status=WorkerStatus(row["status"]),
        )

    async def add_worker(self, worker: WorkerRecord, attachment: str) -> None:
        """Store a new worker."""
        async with self._postgres.acquire() as connection:
            await connection.execute(
                sql.INSERT_WORKER,
                worker.worker_id,
                worker.service_account_id,
                worker.org_id,
                worker.name,
                list(worker.adapters),
                worker.max_concurrent_runs,
                str(worker.status),
                attachment,
            )

    async def reattach_worker(self, worker: WorkerRecord, before: WorkerStatus, attachment: str) -> bool:
        """Give the worker to another stream, if it still is in `before`."""
        return await self._holds(
            sql.REATTACH_WORKER,
            worker.worker_id,
            str(before),
            worker.name,
            list(worker.adapters),
            worker.max_concurrent_runs,
            str(worker.status),
            attachment,
        )

    async def move_worker(self, worker_id: str, attachment: str, status: WorkerStatus) -> bool:
        """Set the status and note a sign of life; False when the stream does not speak for the worker any more."""
        return await self._holds(sql.MOVE_WORKER, worker_id, attachment, str(status))

    async def _holds(self, statement: str, *arguments: Any) -> bool:
        async with self._postgres.acquire() as connection:
            return bool(await connection.fetchval(statement, *arguments))

    async def lose_silent_workers(self, lost_after_ms: int) -> list[str]:
        """Mark the workers lost that were silent for longer, and return their ids."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.LOSE_SILENT_WORKERS, lost_after_ms)
        return [row["worker_id"] for row in rows]

    async def leases_of_ended_workers(self, limit: int) -> list[LeaseRecord]:
        """Leases whose workers are lost or stopped."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_LEASES_OF_ENDED_WORKERS, limit)
        return [LeaseRecord(row["run_id"], row["worker_id"], row["lease_epoch"]) for row in rows]

    async def leases_of(self, worker_id: str) -> list[LeaseRecord]:
        """The leases of a worker."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_LEASES_OF_WORKER, worker_id)
        return [LeaseRecord(row["run_id"], worker_id, row["lease_epoch"]) for row in rows]

    async def lessee(self, run_id: str, lease_epoch: int) -> tuple[str, str] | None:
        """Worker and service account that got the lease, if it is the newest of the run."""
        if lease_epoch > _HIGHEST_EPOCH:
            return None
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_LESSEE, run_id, lease_epoch)
        return None if row is None else (row["worker_id"], row["service_account_id"])

    async def due_cancels(self, deadline_ms: int, limit: int) -> list[str]:
        """Runs whose cancel was asked for longer ago."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_DUE_CANCELS, deadline_ms, limit)
        return [row["run_id"] for row in rows]

    async def waiting_runs(self, org_id: str, adapters: Sequence[str], limit: int) -> list[str]:
        """Runs that wait for a worker, the oldest first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_WAITING_RUNS, org_id, list(adapters), limit)
        return [row["run_id"] for row in rows]
