"""Several messages of a worker's stream as one: each counts as if it had come alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_testing.postgres import Database
from openagents.runtime.v1 import worker_service_pb2 as pb
from services.runtime.tests.rig import (
    FakeWorker,
    Replica,
    Somebody,
    attached,
    finish,
    refusing,
    replica,
    runtime_settings,
    somebody,
    text,
)


@pytest_asyncio.fixture
async def runtime(runtime_database: Database) -> AsyncIterator[tuple[Replica, Somebody]]:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        yield runtime, who


async def started(runtime: Replica, who: Somebody, worker: FakeWorker, count: int) -> list[pb.RunAssignment]:
    """Runs that the worker has got."""
    assignments = []
    for _ in range(count):
        await runtime.create(who, new_id("key"))
        assignments.append((await worker.next("assignment")).assignment)
    return assignments


def append(number: int, assignment: pb.RunAssignment, key: str, *, epoch: int = 1) -> pb.AttachRequest:
    run_id, events = assignment.run.run_id, [text(key.encode())] if key != "end" else [finish()]
    request = pb.AppendEventsRequest(
        request_id=number, run_id=run_id, lease_epoch=epoch, idempotency_key=key, events=events
    )
    return pb.AttachRequest(append=request)


def batch(*requests: pb.AttachRequest) -> pb.AttachRequest:
    return pb.AttachRequest(batch=pb.AttachRequestBatch(requests=requests))


async def answers(worker: FakeWorker, count: int) -> list[pb.AttachResponse]:
    """So many messages, however they come."""
    heard: list[pb.AttachResponse] = []
    while len(heard) < count:
        message = await refusing(worker.call.read())
        heard += message.batch.responses or [message]
    return heard


async def test_each_message_of_a_batch_is_answered_as_if_it_had_come_alone(runtime: tuple[Replica, Somebody]) -> None:
    replica, who = runtime
    worker = await attached(replica, who)
    one, two = await started(replica, who, worker, 2)
    beat = pb.AttachRequest(heartbeat=pb.WorkerHeartbeat())
    bad = append(3, one, "no key, alas")
    await worker.write(
        batch(append(1, one, "a"), append(2, two, "a"), beat, bad, append(4, one, "end"), append(5, two, "b", epoch=9))
    )
    said = {}
    for message in await answers(worker, 5):
        kind = str(message.WhichOneof("message"))
        answer = getattr(message, kind)
        said[answer.request_id] = getattr(answer, "reason", kind)
    assert said == {1: "appended", 2: "appended", 3: "invalid_value", 4: "appended", 5: "stale_epoch"}


async def test_a_batch_in_a_batch_ends_the_stream(runtime: tuple[Replica, Somebody]) -> None:
    replica, who = runtime
    worker = await attached(replica, who)
    await worker.write(batch(pb.AttachRequest(heartbeat=pb.WorkerHeartbeat()), batch()))
    refusal = await _refused(worker)
    assert (refusal.reason, refusal.field) == ("attach_out_of_order", "batch.requests[1].attach")


async def test_only_a_worker_that_takes_batches_gets_one(runtime: tuple[Replica, Somebody]) -> None:
    replica, who = runtime
    for takes_batches in (False, True):
        worker = FakeWorker(replica, who)
        hello = pb.WorkerHello(name="w", adapters=["exec"], max_concurrent_runs=8, takes_batches=takes_batches)
        await worker.write(pb.AttachRequest(attach=hello))
        assert (await worker.next("attached")).attached.takes_batches
        runs = await started(replica, who, worker, 8)
        await worker.write(batch(*(append(number, run, "end") for number, run in enumerate(runs))))
        heard: list[pb.AttachResponse] = []
        while sum(len(message.batch.responses) or 1 for message in heard) < len(runs):
            heard.append(await refusing(worker.call.read()))
        numbers = [one.appended.request_id for message in heard for one in message.batch.responses or [message]]
        assert sorted(numbers) == list(range(len(runs)))
        assert any(message.HasField("batch") for message in heard) == takes_batches
        await worker.leave()


async def _refused(worker: FakeWorker) -> Refusal:
    try:
        while await refusing(worker.call.read()) is not grpc.aio.EOF:
            pass
    except Refusal as refusal:
        return refusal
    raise AssertionError("the stream was not refused")
