"""The pause of a run whose worker was lost, before another worker gets it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg

from oa_platform.health.quarantine import Quarantine
from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database
from openagents.runtime.v1 import event_pb2, run_service_pb2, worker_service_pb2
from services.runtime.tests.rig import (
    PATIENT_WORKERS,
    Somebody,
    attached,
    keep_beating,
    replica,
    runtime_settings,
    started,
)
from services.runtime.workers.app.ports import QueueRules
from services.runtime.workers.limits import WorkerLimits
from services.runtime.workers.store.workers import PostgresWorkers


async def test_a_run_whose_worker_was_lost_has_a_pause(runtime_database: Database, who: Somebody) -> None:
    limits = replace(PATIENT_WORKERS, retry_initial_ms=600, retry_max_ms=1_000)
    async with replica(runtime_settings(runtime_database, workers=limits), who.key) as runtime:
        leaving = await attached(runtime, who)
        run_id = await started(runtime, who, leaving)
        staying = await attached(runtime, who)
        beating = asyncio.create_task(keep_beating(staying))
        admin = await asyncpg.connect(runtime_database.admin)
        await admin.execute("UPDATE runtime.workers SET status = 'lost' WHERE worker_id = $1", leaving.worker_id)
        async with asyncio.timeout(60):
            again = (await staying.next("assignment")).assignment
        # By the database's clock, which the pause is counted by: what replicas record from memory may lag behind it.
        now = await admin.fetchval("SELECT clock_timestamp()")
        beating.cancel()
        assert (again.run.run_id, again.run.attempt) == (run_id, 2)
        times = await admin.fetch("SELECT recorded_at FROM runtime.events WHERE run_id = $1 ORDER BY seq", run_id)
        await admin.close()
        _created, _started, lost, _restarted = (row["recorded_at"] for row in times)
        assert (now - lost).total_seconds() >= 0.6


async def test_the_pause_alone_holds_back_a_run_whose_worker_was_lost(
    runtime_database: Database, who: Somebody
) -> None:
    hour_ms = 3_600_000
    limits = replace(PATIENT_WORKERS, retry_initial_ms=hour_ms, retry_max_ms=hour_ms)
    settings = runtime_settings(runtime_database, workers=limits)
    async with replica(settings, who.key) as runtime, Postgres(settings.database, "test") as postgres:
        leaving = await attached(runtime, who)
        run_id = await started(runtime, who, leaving)
        async with postgres.acquire() as connection:
            await connection.execute(
                "UPDATE runtime.workers SET status = 'lost' WHERE worker_id = $1", leaving.worker_id
            )
            async with asyncio.timeout(60):
                while not await connection.fetchval("SELECT fenced FROM runtime.runs WHERE run_id = $1", run_id):
                    await asyncio.sleep(0.01)
        store, broken = PostgresWorkers(postgres, "rep_1"), Quarantine("tests", "run_id")
        for pause_ms, expected in ((hour_ms, []), (0, [run_id])):
            queue = await store.waiting_runs(who.org_id, ["exec"], 10, QueueRules([pause_ms]), {}, broken)
            assert [run.run_id for run in queue.runs] == expected


async def test_an_input_does_not_begin_the_pause_anew(runtime_database: Database, who: Somebody) -> None:
    hour_ms = 3_600_000
    limits = replace(PATIENT_WORKERS, retry_initial_ms=hour_ms, retry_max_ms=hour_ms)
    settings = runtime_settings(runtime_database, workers=limits)
    async with replica(settings, who.key) as runtime, Postgres(settings.database, "test") as postgres:
        leaving = await attached(runtime, who)
        spec = event_pb2.RunSpec(adapter="exec", agent=event_pb2.AgentSpec(input_json="{}"))
        create = run_service_pb2.CreateRunRequest(idempotency_key="k", spec=spec)
        run_id = (await runtime.runs.CreateRun(create, metadata=who.as_person())).run.run_id
        await leaving.next("assignment")
        async with postgres.acquire() as connection:
            await connection.execute(
                "UPDATE runtime.workers SET status = 'lost' WHERE worker_id = $1", leaving.worker_id
            )
            lost_at = None
            async with asyncio.timeout(60):
                while lost_at is None:
                    lost_at = await connection.fetchval(_LOST_AT, run_id)
            await asyncio.sleep(0.5)  # a pause of this length would not be over if it began with the input
            request = run_service_pb2.SendInputRequest(run_id=run_id, idempotency_key="i", input_json='"go on"')
            await runtime.runs.SendInput(request, metadata=who.as_person())
            now = await connection.fetchval("SELECT clock_timestamp()")
        since_loss_ms = int((now - lost_at).total_seconds() * 1000)
        queue = await PostgresWorkers(postgres, "rep_1").waiting_runs(
            who.org_id, ["exec"], 10, QueueRules([since_loss_ms]), {}, Quarantine("tests", "run_id")
        )
        assert [run.run_id for run in queue.runs] == [run_id]


_LOST_AT = "SELECT recorded_at FROM runtime.events WHERE run_id = $1 AND type = 'executor.lost'"


async def test_a_run_whose_worker_said_goodbye_has_none(runtime_database: Database, who: Somebody) -> None:
    limits = replace(PATIENT_WORKERS, retry_initial_ms=3_600_000, retry_max_ms=3_600_000)
    async with replica(runtime_settings(runtime_database, workers=limits), who.key) as runtime:
        leaving = await attached(runtime, who)
        run_id = await started(runtime, who, leaving)
        staying = await attached(runtime, who)
        await leaving.call.write(worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye()))
        async with asyncio.timeout(60):
            again = (await staying.next("assignment")).assignment
        assert (again.run.run_id, again.run.attempt) == (run_id, 2)


def test_pauses_grow_up_to_the_longest() -> None:
    assert WorkerLimits(retry_initial_ms=100, retry_max_ms=1_000).pauses_ms()[:6] == [100, 200, 400, 800, 1000, 1000]
