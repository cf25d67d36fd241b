"""Workers and leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import asyncpg

from oa_platform.health.quarantine import Quarantine
from oa_platform.postgres.columns import columns
from oa_platform.postgres.pool import Postgres
from oa_runlog import wire
from oa_runlog.workers import WorkerStatus
from services.runtime.agents.domain import agents_document
from services.runtime.workers.app.ports import LeaseRecord, Queue, QueueRules, Seen, Waiting, WaitingRun, WorkerRecord
from services.runtime.workers.domain.vigil import SignOfLife
from services.runtime.workers.store import sql

_ENDED = {WorkerStatus.LOST, WorkerStatus.STOPPED}
_HIGHEST_EPOCH = 2**63 - 1
"""The maximum of the column. A caller may ask for a higher lease, which can't exist."""


class PostgresWorkers:
    """The worker store."""

    def __init__(self, postgres: Postgres, replica_id: str) -> None:
        self._postgres = postgres
        self._replica_id = replica_id

    async def worker(self, worker_id: str) -> WorkerRecord | None:
        """The record of a worker."""
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
                self._replica_id,
                agents_document(worker.agents),
            )

    async def reattach_worker(self, worker: WorkerRecord, before: WorkerStatus, attachment: str) -> bool:
        """Give the worker to another stream, if its status still is `before`."""
        return await self._holds(
            sql.REATTACH_WORKER,
            worker.worker_id,
            str(before),
            worker.name,
            list(worker.adapters),
            worker.max_concurrent_runs,
            str(worker.status),
            attachment,
            self._replica_id,
            agents_document(worker.agents),
        )

    async def move_worker(self, worker_id: str, attachment: str, status: WorkerStatus) -> bool:
        """Set the status and note a sign of life; False if the stream no longer speaks for the worker."""
        return await self._holds(sql.MOVE_WORKER, worker_id, attachment, str(status))

    async def _holds(self, statement: str, *arguments: Any) -> bool:
        async with self._postgres.acquire() as connection:
            return bool(await connection.fetchval(statement, *arguments))

    async def look(self, attached: Mapping[str, str], heard: Mapping[str, str], *, accepts: bool) -> Seen:
        """Look after workers: store which of them were `heard`, and read the state of all."""
        async with self._postgres.acquire() as connection:
            if heard:
                await connection.execute(sql.STORE_HEARTBEATS, list(heard), list(heard.values()))
            if accepts:
                await connection.execute(sql.COUNT_LOOK, self._replica_id)
            replicas = await connection.fetch(sql.READ_REPLICAS)
            rows = await connection.fetch(sql.READ_SIGNS_OF_LIFE, list(attached))
        signs = [
            SignOfLife(row["worker_id"], row["attachment"], row["last_heartbeat_at"], row["replica_id"])
            for row in rows
            if row["status"] not in _ENDED
        ]
        stay = {(row["worker_id"], row["attachment"]) for row in rows if row["status"] != WorkerStatus.LOST}
        left = {worker_id: one for worker_id, one in attached.items() if (worker_id, one) not in stay}
        return Seen({row["replica_id"]: row["looks"] for row in replicas}, signs, left)

    async def lose_workers(self, silent: Sequence[SignOfLife]) -> list[str]:
        """Mark as lost the workers that gave no further sign of life, and return their ids."""
        if not silent:
            return []
        marks = [(sign.worker_id, sign.attachment, sign.beat) for sign in silent]
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.LOSE_WORKERS, *columns(marks, 3))
        return [row["worker_id"] for row in rows]

    async def forget_replicas(self, absent: Mapping[str, int]) -> None:
        """Drop the replicas that have not looked again."""
        if absent:
            async with self._postgres.acquire() as connection:
                await connection.execute(sql.FORGET_REPLICAS, list(absent), list(absent.values()))

    async def stop_workers_of(self, service_account_id: str) -> list[str]:
        """Stop the workers of an account, and return the ids of those that had not ended."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.STOP_WORKERS_OF, service_account_id)
        return [row["worker_id"] for row in rows]

    async def remove_ended(self, after: str, kept_days: int, page: int) -> tuple[int, str | None]:
        """Remove those of a page of ended workers that ended long ago, with their topics."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.REMOVE_ENDED_WORKERS, after, kept_days, page)
        assert row is not None  # the statement always returns a row
        return row["removed"], row["reached"]

    async def leases_of_ended_workers(self, limit: int, left_out: Sequence[str]) -> list[LeaseRecord]:
        """Leases whose workers are lost or stopped."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_LEASES_OF_ENDED_WORKERS, limit, left_out)
        return [LeaseRecord(row["run_id"], row["worker_id"], row["lease_epoch"]) for row in rows]

    async def leases_of(self, worker_id: str) -> list[LeaseRecord]:
        """The leases of a worker."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_LEASES_OF_WORKER, worker_id)
        return [LeaseRecord(row["run_id"], worker_id, row["lease_epoch"]) for row in rows]

    async def lease_holder(self, run_id: str, lease_epoch: int) -> tuple[str, str] | None:
        """The worker and the service account that got the lease, if it is the newest lease of the run."""
        if lease_epoch > _HIGHEST_EPOCH:
            return None
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_LEASE_HOLDER, run_id, lease_epoch)
        return None if row is None else (row["worker_id"], row["service_account_id"])

    async def canceling_runs(self) -> list[str]:
        """Runs whose workers were told to end them, the longest ago first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_CANCELING_RUNS)
        return [row["run_id"] for row in rows]

    async def waiting_runs(
        self,
        org_id: str,
        adapters: Sequence[str],
        limit: int,
        rules: QueueRules,
        marks: Mapping[str, int],
        broken: Quarantine,
    ) -> Queue:
        """The runs that wait for a worker."""
        bounds = rules.max_running_per_org, rules.max_running_per_person
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                sql.READ_WAITING_RUNS,
                org_id,
                list(adapters),
                limit,
                list(rules.pauses_ms),
                *bounds,
                list(marks),
                list(marks.values()),
                broken.ids,
            )
        runs = broken.decoded((row for row in rows if row["run_id"]), _waiting_run)
        return Queue(runs, rows[0]["waiting"] > len(runs))

    async def waiting(self) -> Waiting:
        """The runs of all orgs that wait for a worker."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_WAITING)
        assert row is not None  # it counts
        return Waiting(row["runs"], row["oldest_s"])

    async def next_time_ms(self, within_ms: int) -> int | None:
        """Milliseconds until the next run's time, if it comes within `within_ms`."""
        async with self._postgres.acquire() as connection:
            return cast("int | None", await connection.fetchval(sql.READ_NEXT_TIME, within_ms))

    async def overdue_runs(self, limit: int, left_out: Sequence[str]) -> list[str]:
        """Runs whose start timeout or run timeout is over, the longest overdue first."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(sql.READ_OVERDUE_RUNS, limit, left_out)
        return [row["run_id"] for row in rows]


def _waiting_run(row: asyncpg.Record) -> WaitingRun:
    return WaitingRun(row["run_id"], row["user_id"], wire.decode_spec(row["spec"]))
