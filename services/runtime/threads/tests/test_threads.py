"""Runs of one thread over real gRPC: beside each other, one after the other, or instead of each other."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from oa_base.refusal import Refusal
from oa_testing.postgres import Database
from openagents.runtime.v1 import event_pb2, run_pb2, worker_service_pb2
from services.runtime.tests.rig import (
    FakeWorker,
    Replica,
    Somebody,
    attached,
    finish,
    refusal_of_call,
    replica,
    runtime_settings,
    until_status,
)

REJECT, ENQUEUE, INTERRUPT = (
    event_pb2.THREAD_POLICY_REJECT,
    event_pb2.THREAD_POLICY_ENQUEUE,
    event_pb2.THREAD_POLICY_INTERRUPT,
)
NONE = event_pb2.THREAD_POLICY_UNSPECIFIED
CANCELED = event_pb2.RUN_OUTCOME_CANCELED


async def assigned(worker: FakeWorker) -> tuple[str, int]:
    assignment = (await worker.next("assignment")).assignment
    return assignment.run.run_id, assignment.lease_epoch


async def end(worker: FakeWorker, run_id: str, epoch: int = 1) -> None:
    await worker.append(run_id, epoch, f"end-{epoch}", finish())


async def test_without_a_policy_they_go_on_side_by_side(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    runs = {(await runtime.create(who, key, thread=("thr", NONE))).run_id for key in ("a", "b")}
    assert {(await assigned(worker))[0] for _ in runs} == runs


async def test_enqueued_runs_go_one_after_the_other_in_their_order(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    runs = [(await runtime.create(who, f"k{n}", thread=("thr", ENQUEUE))).run_id for n in range(3)]
    other = (await runtime.create(who, "other", thread=("thr-2", ENQUEUE))).run_id
    assert {(await assigned(worker))[0] for _ in range(2)} == {runs[0], other}, "and other threads don't wait"
    for run_id, following in pairwise(runs):
        free = await runtime.create(who, f"free-after-{run_id}")  # had one more of the thread gone, it had come first
        assert (await assigned(worker))[0] == free.run_id
        await end(worker, run_id)
        assert (await assigned(worker))[0] == following


async def test_a_run_that_waits_for_a_newer_one_of_its_thread_holds_up_no_other(
    runtime: Replica, who: Somebody
) -> None:
    """A run without a policy doesn't wait for its thread, and may be at work before an older one."""
    worker = await attached(runtime, who)
    await runtime.create(who, "older", thread=("thr", ENQUEUE))
    older = await assigned(worker)
    waiting = (await runtime.create(who, "waiting", thread=("thr", ENQUEUE))).run_id
    newer = (await runtime.create(who, "newer", thread=("thr", NONE))).run_id
    running = await assigned(worker)
    assert running[0] == newer
    await end(worker, *older)
    other = (await runtime.create(who, "other")).run_id
    assert (await assigned(worker))[0] == other, "it has no thread"
    await end(worker, *running)
    assert (await assigned(worker))[0] == waiting


async def test_a_run_that_waits_for_its_next_attempt_keeps_its_turn(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    retry = event_pb2.QueuePolicy(retry=event_pb2.RetryPolicy(max_failures=2, initial_delay_ms=300))
    first = await runtime.create(who, "a", thread=("thr", ENQUEUE), queue=retry)
    second = await runtime.create(who, "b", thread=("thr", ENQUEUE))
    assert await assigned(worker) == (first.run_id, 1)
    await worker.append(first.run_id, 1, "end", finish(event_pb2.RUN_OUTCOME_FAILED))
    assert await assigned(worker) == (first.run_id, 2)
    await end(worker, first.run_id, 2)
    assert await assigned(worker) == (second.run_id, 1)


async def test_a_run_that_is_not_to_wait_is_refused_and_never_created(runtime: Replica, who: Somebody) -> None:
    busy = await runtime.create(who, "a", thread=("thr", NONE))
    refusal = await refusal_of_call(runtime.create(who, "b", thread=("thr", REJECT)))
    assert (refusal.reason, refusal.field) == ("thread_busy", "spec.thread_id")
    stranger = Somebody(who.key)
    assert (await runtime.create(stranger, "b", thread=("thr", REJECT))).run_id, "a thread is that of an org"
    worker = await attached(runtime, who)
    await assigned(worker)
    await end(worker, busy.run_id)
    created = await runtime.create(who, "b", thread=("thr", REJECT))
    again = await runtime.create(who, "b", thread=("thr", REJECT))
    assert again.run_id == created.run_id, "it is not refused for itself"


async def test_of_many_at_once_one_is_created(runtime_database: Database, who: Somebody) -> None:
    """On two replicas, in any partition."""
    settings = runtime_settings(runtime_database)
    async with replica(settings, who.key) as one, replica(settings, who.key) as other:
        calls = ((one, other)[n % 2].create(who, f"k{n}", thread=("thr", REJECT)) for n in range(20))
        answers = await asyncio.gather(*(refusal_or_run(call) for call in calls))
    assert sorted(answers) == ["created", *["thread_busy"] * 19]


async def refusal_or_run(call: object) -> str:
    try:
        return (await refusal_of_call(call)).reason
    except AssertionError:
        return "created"


async def test_a_run_that_interrupts_goes_when_the_older_ones_have_ended(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    old = await runtime.create(who, "a", thread=("thr", ENQUEUE))
    assert await assigned(worker) == (old.run_id, 1)
    waiting = await runtime.create(who, "b", thread=("thr", ENQUEUE))
    elsewhere = await runtime.create(who, "c", thread=("thr-2", ENQUEUE))
    await assigned(worker)
    new = await runtime.create(who, "d", thread=("thr", INTERRUPT))
    told = (await worker.next("cancel")).cancel
    assert (told.run_id, told.reason) == (old.run_id, f"interrupted by {new.run_id}")
    canceled = await until_status(runtime, who, waiting.run_id, run_pb2.RUN_STATUS_CANCELED)
    assert canceled.attempt == 0, "one that nobody had started ends at once"
    await worker.append(old.run_id, 1, "end", finish(CANCELED))
    assert await assigned(worker) == (new.run_id, 1)
    assert (await runtime.run(who, elsewhere.run_id)).status == run_pb2.RUN_STATUS_RUNNING
    later = await runtime.create(who, "e", thread=("thr", ENQUEUE))
    await end(worker, new.run_id)
    assert await assigned(worker) == (later.run_id, 1), "a newer one is not interrupted"


async def test_an_interruption_outlives_its_replica(runtime_database: Database, who: Somebody) -> None:
    """Whoever looks next asks for it, if the first did not come to it."""
    settings = runtime_settings(runtime_database)
    async with replica(settings, who.key) as runtime:
        worker = await attached(runtime, who)
        old = await runtime.create(who, "a", thread=("thr", ENQUEUE))
        await assigned(worker)
        await worker.write(worker_service_pb2.AttachRequest(drain=worker_service_pb2.WorkerDrain()))
        await runtime.create(who, "b", thread=("thr", INTERRUPT))
    async with replica(settings, who.key) as runtime:
        await until_status(runtime, who, old.run_id, run_pb2.RUN_STATUS_CANCELING)


async def test_a_policy_needs_a_thread(runtime: Replica, who: Somebody) -> None:
    refusal: Refusal = await refusal_of_call(runtime.create(who, thread=("", ENQUEUE)))
    assert (refusal.reason, refusal.field) == ("missing_field", "spec.thread_id")
