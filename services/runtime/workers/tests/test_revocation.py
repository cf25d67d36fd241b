"""A worker whose service account was revoked: its stream ends, its runs go to others, and it never comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_platform.auth.revocations import Revocation
from oa_testing.postgres import Database
from oa_testing.waiting import eventually
from openagents.runtime.v1 import worker_service_pb2
from openagents.runtime.v1.worker_service_pb2 import AppendEventsRequest
from services.runtime.tests.rig import (
    PATIENT_WORKERS,
    FakeWorker,
    Replica,
    Somebody,
    attached,
    finish,
    refusal_of_call,
    refusing,
    replica,
    runtime_settings,
    somebody,
)


def revoke(runtime: Replica, who: Somebody) -> None:
    runtime.revocations.take([Revocation(subject=who.account_id)], runtime.revocations.position + 1)


async def ends_as(worker: FakeWorker) -> str:
    """The reason that the worker's stream ends with."""
    try:
        while True:
            await refusing(worker.call.read())
    except Refusal as refusal:
        return refusal.reason


async def test_its_run_goes_to_a_worker_of_another_account_at_once(runtime_database: Database) -> None:
    who = somebody()
    patient = replace(PATIENT_WORKERS, retry_initial_ms=3_600_000, retry_max_ms=3_600_000)
    async with replica(runtime_settings(runtime_database, workers=patient), who.key) as runtime:
        worker = await attached(runtime, who)
        run_id = (await runtime.create(who)).run_id
        assert (await worker.next("assignment")).assignment.lease_epoch == 1
        other = replace(who, account_id=somebody().account_id)
        staying = await attached(runtime, other)

        revoke(runtime, who)
        async with asyncio.timeout(60):
            again = (await staying.next("assignment")).assignment
        assert (again.run.run_id, again.lease_epoch, again.run.attempt) == (run_id, 2, 2)
        assert await ends_as(worker) == "token_revoked"
        assert (await staying.append(run_id, 2, "end", finish())).last_seq


async def test_nothing_that_a_worker_can_call_takes_its_token_any_more(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        worker = await attached(runtime, who)
        token = who.as_worker()
        revoke(runtime, who)
        assert await ends_as(worker) == "token_revoked"
        with pytest.raises(Refusal, match="token_revoked"):
            await FakeWorker(runtime, who, worker.worker_id).attach()
        append = AppendEventsRequest(run_id="run_01JD0000000000000000000000", lease_epoch=1, idempotency_key="k")
        held = worker_service_pb2.ReadHeldRunRequest(run_id=append.run_id, lease_epoch=1)
        for call in (
            runtime.workers.AppendEvents(append, metadata=token),
            runtime.workers.ReadHeldRun(held, metadata=token),
        ):
            assert (await refusal_of_call(call)).reason == "token_revoked"


async def test_a_stream_does_not_go_on_with_a_token_that_was_revoked(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        worker = await attached(runtime, who)
        token = dict(who.as_worker())["authorization"].removeprefix("Bearer ")
        # What the stream began with is not looked at any more: only what it is to go on with.
        runtime.revocations._watched.clear()
        revoke(runtime, who)
        renew = worker_service_pb2.WorkerRenewal(token=token)
        await worker.write(worker_service_pb2.AttachRequest(renew=renew))
        assert await ends_as(worker) == "token_revoked"


async def test_a_stream_that_has_ended_is_watched_no_longer(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        worker = await attached(runtime, who)
        assert runtime.revocations._watched
        await worker.leave()
        await eventually(lambda: not runtime.revocations._watched)
