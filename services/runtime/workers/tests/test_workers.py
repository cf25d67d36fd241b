"""Workers over real gRPC: leases and their epochs, cancels, silence, reconnects, and who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import grpc.aio
import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.auth.keys import SigningKey
from oa_testing.locks import until_lock_waits
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from oa_testing.waiting import eventually
from openagents.runtime.v1 import event_pb2, run_pb2, run_service_pb2, worker_service_pb2
from services.runtime.config import SequencerSettings, WorkerSettings
from services.runtime.log.metrics import COMMANDS
from services.runtime.log.metrics import QUEUE_COMMANDS as QUEUED
from services.runtime.tests.rig import (
    PATIENT_WORKERS,
    QUICK_RUNS,
    QUICK_WORKERS,
    FakeWorker,
    Replica,
    Somebody,
    attached,
    cancel,
    finish,
    keep_beating,
    refusal_of_call,
    replica,
    runtime_settings,
    somebody,
    started,
    text,
    until_status,
)

CANCELED = event_pb2.RUN_OUTCOME_CANCELED


@pytest_asyncio.fixture
async def quick(runtime_database: Database, who: Somebody) -> AsyncIterator[Replica]:
    """A replica that soon takes a silent worker for lost, and carries out cancels itself."""
    settings = runtime_settings(runtime_database, workers=QUICK_WORKERS, runs=QUICK_RUNS)
    async with replica(settings, who.key) as runtime:
        yield runtime


def held(run_id: str, epoch: int = 1) -> worker_service_pb2.HeldLease:
    return worker_service_pb2.HeldLease(run_id=run_id, lease_epoch=epoch)


# ------------------------------------------------------------------------------------------------- assignment


async def test_a_worker_gets_as_many_runs_as_it_takes_and_the_next_when_one_ends(
    runtime: Replica, who: Somebody
) -> None:
    worker = await attached(runtime, who, slots=2)
    runs = [(await runtime.create(who, f"k{n}")).run_id for n in range(3)]
    first = [(await worker.next("assignment")).assignment.run.run_id for _ in range(2)]
    assert sorted(first) == sorted(runs[:2]), "the oldest first"
    assert (await worker.append(first[0], 1, "end", finish())).last_seq == 3
    assert (await worker.next("assignment")).assignment.run.run_id == runs[2]


async def test_a_run_waits_for_a_worker_of_its_org_with_its_adapter(runtime: Replica, who: Somebody) -> None:
    stranger = Somebody(who.key)
    theirs = await attached(runtime, stranger)
    run = await runtime.create(who)
    await runtime.create(stranger, "theirs")
    assert (await theirs.next("assignment")).assignment.run.org_id == stranger.org_id
    spec = event_pb2.RunSpec(adapter="codex", prompt=event_pb2.PromptSpec(text="x"))
    request = run_service_pb2.CreateRunRequest(idempotency_key="codex", spec=spec)
    codex = (await runtime.runs.CreateRun(request, metadata=who.as_person())).run
    worker = await attached(runtime, who)
    assert (await worker.next("assignment")).assignment.run.run_id == run.run_id
    await asyncio.sleep(0.3)
    assert (await runtime.run(who, codex.run_id)).status == run_pb2.RUN_STATUS_CREATED


async def test_a_draining_worker_gets_nothing_new_and_ends_what_it_has(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    run_id = await started(runtime, who, worker)
    drain = worker_service_pb2.AttachRequest(drain=worker_service_pb2.WorkerDrain())
    await worker.call.write(drain)
    assert (await worker.append(run_id, 1, "a", text(b"x"))).last_seq == 3, "what was said before it has been heard"
    waiting = await runtime.create(who, "later")
    assert (await worker.append(run_id, 1, "end", finish())).last_seq == 4
    assert (await runtime.run(who, waiting.run_id)).status == run_pb2.RUN_STATUS_CREATED


async def test_a_worker_that_is_quiet_gets_nothing_new(runtime_database: Database, who: Somebody) -> None:
    limits = replace(PATIENT_WORKERS, quiet_after_ms=1_000)
    async with replica(runtime_settings(runtime_database, workers=limits), who.key) as runtime:
        worker = await attached(runtime, who)
        await asyncio.sleep(1.1)
        run = await runtime.create(who)
        await asyncio.sleep(0.3)
        assert (await runtime.run(who, run.run_id)).status == run_pb2.RUN_STATUS_CREATED
        beating = asyncio.create_task(keep_beating(worker))
        assert (await worker.next("assignment")).assignment.run.run_id == run.run_id
        beating.cancel()


async def test_more_runs_than_one_look_hands_out_are_handed_out_by_the_next(
    runtime_database: Database, who: Somebody
) -> None:
    limits = replace(PATIENT_WORKERS, dispatch_page=1, watch_page=1, dispatch_interval_ms=60_000)
    async with replica(runtime_settings(runtime_database, workers=limits, runs=QUICK_RUNS), who.key) as runtime:
        runs = [(await runtime.create(who, f"k{n}")).run_id for n in range(3)]
        worker = await attached(runtime, who)
        async with asyncio.timeout(60):
            assert [(await worker.next("assignment")).assignment.run.run_id for _ in range(3)] == runs
        for run_id in runs:
            await cancel(runtime, who, run_id)
        for run_id in runs:
            await until_status(runtime, who, run_id, run_pb2.RUN_STATUS_CANCELED)


# ------------------------------------------------------------------------------------------------- appends


async def test_a_stream_with_many_appends_on_their_way_is_not_read_any_further(
    runtime_database: Database, who: Somebody
) -> None:
    limits = replace(PATIENT_WORKERS, pending_appends=2)
    admin = await asyncpg.connect(runtime_database.admin)
    async with replica(runtime_settings(runtime_database, workers=limits), who.key) as runtime:
        worker = await attached(runtime, who)
        run_id = await started(runtime, who, worker)
        before = value_of(QUEUED)
        async with admin.transaction():
            await admin.execute("SELECT 1 FROM runtime.log_heads FOR UPDATE")
            for number in range(1, 7):
                request = worker_service_pb2.AppendEventsRequest(
                    request_id=number, run_id=run_id, lease_epoch=1, idempotency_key=f"k{number}", events=[text(b"x")]
                )
                await worker.call.write(worker_service_pb2.AttachRequest(append=request))
            # One is in the transaction that waits, one is in the queue; four are not read.
            await until_lock_waits(admin)
            await eventually(lambda: value_of(QUEUED) - before >= 1)
            await asyncio.sleep(0.3)
            assert value_of(QUEUED) - before == 1
        answers = [(await worker.next("appended")).appended.request_id for _ in range(6)]
        assert answers == [1, 2, 3, 4, 5, 6]
    await admin.close()


async def test_appends_are_answered_in_the_order_in_which_they_were_sent(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    run_id = await started(runtime, who, worker)
    for number in range(1, 31):
        request = worker_service_pb2.AppendEventsRequest(
            request_id=number, run_id=run_id, lease_epoch=1, idempotency_key=f"k{number}", events=[text(b"x")]
        )
        await worker.call.write(worker_service_pb2.AttachRequest(append=request))
    answers = [(await worker.next("appended")).appended for _ in range(30)]
    assert [(a.request_id, a.first_seq) for a in answers] == [(n, n + 2) for n in range(1, 31)]


async def test_an_append_that_is_refused_at_once_is_answered_in_its_turn(
    runtime_database: Database, who: Somebody
) -> None:
    """By a rule of the message, or because the queue is full: the appends before it wait for a commit."""
    settings = runtime_settings(runtime_database, sequencer=SequencerSettings(queue_commands=2))
    overloaded = COMMANDS.labels("Append", "overloaded")
    before = value_of(overloaded)
    async with replica(settings, who.key) as runtime:
        worker = await attached(runtime, who)
        run_id = await started(runtime, who, worker)
        blocker = await asyncpg.connect(runtime_database.admin)
        block = blocker.transaction()
        await block.start()
        await blocker.execute("SELECT FROM runtime.log_heads FOR UPDATE")
        for number in range(1, 13):
            request = worker_service_pb2.AppendEventsRequest(
                request_id=number, run_id=run_id, lease_epoch=1, events=[text(b"x")]
            )
            request.idempotency_key = f"k{number}" if number % 3 else ""
            await worker.call.write(worker_service_pb2.AttachRequest(append=request))
        async with asyncio.timeout(60):
            while value_of(overloaded) == before:
                await asyncio.sleep(0.02)
        await block.rollback()
        await blocker.close()
        answers: list[Any] = [await worker.call.read() for _ in range(12)]
        kinds = [answer.WhichOneof("message") for answer in answers]
        told = [getattr(answer, kind) for answer, kind in zip(answers, kinds, strict=True)]
        assert [answer.request_id for answer in told] == list(range(1, 13))
        reasons = [answer.reason for answer, kind in zip(told, kinds, strict=True) if kind == "append_refused"]
        assert reasons.count("missing_field") == 4
        # Those that come when the queue has room again don't overtake the ones that found it full.
        assert {"missing_field", "overloaded"} <= set(reasons) <= {"missing_field", "overloaded", "append_out_of_order"}
        worker.call.cancel()


async def test_a_refused_append_says_why_and_the_stream_goes_on(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    run_id = await started(runtime, who, worker)
    refused = await worker.append(run_id, 7, "a", text(b"x"))
    assert (refused.reason, refused.field, dict(refused.metadata)) == (
        "stale_epoch", "lease_epoch", {"current_epoch": "1"},
    )  # fmt: skip
    large = await worker.append(run_id, 1, "a", text(b"x" * 300_000))
    assert (large.reason, large.field) == ("payload_too_large", "events[0]")
    unreadable = event_pb2.EventBody(custom=event_pb2.Custom(type="Not A Type"))
    broken = await worker.append(run_id, 1, "a", text(b"x"), unreadable)
    assert (broken.reason, broken.field) == ("invalid_value", "events[1].custom.type")
    reserved = event_pb2.EventBody(run_started=event_pb2.RunStarted(worker_id="w", lease_epoch=1, attempt=1))
    assert (await worker.append(run_id, 1, "a", reserved)).reason == "event_reserved"
    assert (await worker.append(run_id, 1, "a", text(b"x"))).first_seq == 3


async def test_an_append_outside_of_a_stream_needs_the_lease_of_an_own_worker(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    run_id = await started(runtime, who, worker)
    request = worker_service_pb2.AppendEventsRequest(
        request_id=9, run_id=run_id, lease_epoch=1, idempotency_key="a", events=[text(b"x")]
    )
    answer = await runtime.workers.AppendEvents(request, metadata=who.as_worker())
    assert (answer.request_id, answer.first_seq) == (9, 3)
    colleague = replace(who, account_id=somebody().account_id)
    request.idempotency_key = "b"
    call = runtime.workers.AppendEvents(request, metadata=colleague.as_worker())
    assert (await refusal_of_call(call)).reason == "stale_epoch"
    call = runtime.workers.AppendEvents(request, metadata=Somebody(who.key).as_worker())
    assert (await refusal_of_call(call)).reason == "not_found"


# ------------------------------------------------------------------------------------------------- cancel


async def test_a_cancel_reaches_the_worker_and_its_finish_counts(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    run_id = await started(runtime, who, worker)
    assert (await cancel(runtime, who, run_id)).status == run_pb2.RUN_STATUS_CANCELING
    notice = (await worker.next("cancel")).cancel
    assert (notice.run_id, notice.lease_epoch, notice.reason, notice.deadline_ms) == (run_id, 1, "enough", 10_000)
    assert (await worker.append(run_id, 1, "end", finish(CANCELED))).last_seq == 4
    run = await runtime.run(who, run_id)
    assert (run.status, run.finish.reason) == (run_pb2.RUN_STATUS_CANCELED, "")
    assert (await cancel(runtime, who, run_id)).latest_seq == 4, "asking again changes nothing"


async def test_a_cancel_that_the_worker_ignores_is_carried_out_at_the_deadline(quick: Replica, who: Somebody) -> None:
    worker = await attached(quick, who)
    run_id = await started(quick, who, worker)
    await cancel(quick, who, run_id)
    await worker.next("cancel")
    beating = asyncio.create_task(keep_beating(worker))
    run = await until_status(quick, who, run_id, run_pb2.RUN_STATUS_CANCELED)
    beating.cancel()
    assert (run.finish.reason, run.worker_id) == ("cancel_deadline", "")
    assert (await worker.next("lease_lost")).lease_lost == worker_service_pb2.LeaseLost(run_id=run_id, lease_epoch=1)
    assert (await worker.append(run_id, 1, "late", text(b"x"))).reason == "stale_epoch"


async def test_a_run_that_nobody_has_is_canceled_at_once(runtime: Replica, who: Somebody) -> None:
    run = await runtime.create(who)
    canceled = await cancel(runtime, who, run.run_id)
    assert (canceled.status, canceled.latest_seq, canceled.finish.reason) == (
        run_pb2.RUN_STATUS_CANCELED, 3, "canceled",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- silence


async def test_a_silent_worker_is_lost_and_its_run_goes_to_another_with_a_higher_epoch(
    quick: Replica, who: Somebody
) -> None:
    silent = await attached(quick, who)
    run_id = await started(quick, who, silent)
    other = await attached(quick, who)
    beating = asyncio.create_task(keep_beating(other))
    async with asyncio.timeout(60):
        again = (await other.next("assignment")).assignment
    assert (again.run.run_id, again.lease_epoch, again.run.attempt) == (run_id, 2, 2)
    assert (await silent.next("lease_lost")).lease_lost.lease_epoch == 1
    beating.cancel()
    assert (await other.append(run_id, 2, "a", text(b"x"))).first_seq == 5
    with pytest.raises(Refusal) as caught:
        await silent.next("nothing: it was declared lost, and its stream ends")
    assert caught.value.reason == "worker_lost"


async def test_a_worker_that_says_goodbye_gives_its_runs_up_at_once(runtime: Replica, who: Somebody) -> None:
    leaving, staying = await attached(runtime, who), await attached(runtime, who)
    run_id = (await runtime.create(who)).run_id
    readers = {asyncio.create_task(one.next("assignment")): one for one in (leaving, staying)}
    done, left = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    holder = readers[done.pop()]
    waiting = left.pop()
    await holder.call.write(worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye()))
    async with asyncio.timeout(60):
        again = (await waiting).assignment
    assert (again.run.run_id, again.lease_epoch) == (run_id, 2)


async def test_a_run_whose_workers_are_all_lost_fails(runtime_database: Database, who: Somebody) -> None:
    settings = runtime_settings(runtime_database)
    settings = replace(settings, runs=replace(settings.runs, max_requeues=1))
    async with replica(settings, who.key) as runtime:
        run_id = (await runtime.create(who)).run_id
        for attempt in (1, 2):
            worker = await attached(runtime, who)
            assert (await worker.next("assignment")).assignment.run.attempt == attempt
            await worker.call.write(worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye()))
            await worker.next("lease_lost")
            worker.call.cancel()
        run = await until_status(runtime, who, run_id, run_pb2.RUN_STATUS_FAILED)
        assert (run.finish.reason, run.attempt, run.latest_seq) == ("executor_lost", 2, 6)


# ------------------------------------------------------------------------------------------------- reconnects


async def test_a_worker_that_comes_back_in_time_keeps_its_leases(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    run_id = await started(runtime, who, worker)
    await worker.append(run_id, 1, "a", text(b"x"))
    worker.call.cancel()
    back = FakeWorker(runtime, who, worker.worker_id)
    assert (await back.attach(held(run_id))).worker_id == worker.worker_id
    again = await back.append(run_id, 1, "a", text(b"x"))
    assert (again.first_seq, again.already_appended) == (3, True)
    assert (await back.append(run_id, 1, "b", finish())).last_seq == 4


async def test_a_worker_that_comes_back_learns_what_it_missed(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    known, unheard = await started(runtime, who, worker, "k1"), await started(runtime, who, worker, "k2")
    worker.call.cancel()
    await asyncio.sleep(0.05)
    await cancel(runtime, who, known)
    back = FakeWorker(runtime, who, worker.worker_id)
    gone = "run_01JD0000000000000000000000"
    await back.attach(held(known), held(gone, 3))
    said: list[Any] = [await back.call.read() for _ in range(3)]
    by_kind = {message.WhichOneof("message"): message for message in said}
    assert by_kind["cancel"].cancel.run_id == known
    assert by_kind["assignment"].assignment.run.run_id == unheard, "its assignment may have been lost on the way"
    assert by_kind["lease_lost"].lease_lost.run_id == gone


async def test_a_second_stream_takes_the_place_of_the_first(runtime: Replica, who: Somebody) -> None:
    first = await attached(runtime, who)
    second = FakeWorker(runtime, who, first.worker_id)
    await second.attach()
    with pytest.raises(Refusal) as caught:
        await first.next("nothing: it was displaced")
    assert caught.value.reason == "worker_lost"
    await started(runtime, who, second)


async def test_a_worker_may_come_back_to_another_replica(runtime_database: Database, who: Somebody) -> None:
    settings = runtime_settings(runtime_database)
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        worker = await attached(one, who)
        run_id = await started(two, who, worker)
        back = FakeWorker(two, who, worker.worker_id)
        await back.attach(held(run_id))
        # It sends nothing meanwhile: gRPC's client may lose the reason of a call that ends while it sends.
        with pytest.raises(Refusal) as caught:
            await worker.next("nothing: another stream speaks for it")
        assert caught.value.reason == "worker_lost"
        await cancel(one, who, run_id)
        assert (await back.next("cancel")).cancel.run_id == run_id
        assert (await back.append(run_id, 1, "end", finish(CANCELED))).last_seq == 4


@pytest.mark.parametrize(
    ("stranger", "reason"), [("colleague", "owner_mismatch"), ("other org", "not_found"), ("nobody", "not_found")]
)
async def test_a_worker_id_belongs_to_its_service_account(
    runtime: Replica, who: Somebody, stranger: str, reason: str
) -> None:
    worker = await attached(runtime, who)
    other = {
        "colleague": replace(who, account_id=somebody().account_id),
        "other org": Somebody(who.key),
        "nobody": who,
    }[stranger]
    worker_id = "wrk_01JD0000000000000000000000" if stranger == "nobody" else worker.worker_id
    with pytest.raises(Refusal) as caught:
        await FakeWorker(runtime, other, worker_id).attach()
    assert (caught.value.reason, caught.value.field) == (reason, "attach.worker_id")


# ------------------------------------------------------------------------------------------------- bad streams


async def test_a_stream_begins_with_its_hello_and_has_one(runtime: Replica, who: Somebody) -> None:
    worker = FakeWorker(runtime, who)
    await worker.heartbeat()
    with pytest.raises(Refusal) as caught:
        await worker.next("nothing")
    assert caught.value.reason == "attach_out_of_order"
    worker = await attached(runtime, who)
    hello = worker_service_pb2.WorkerHello(name="x", adapters=["exec"], max_concurrent_runs=1)
    await worker.call.write(worker_service_pb2.AttachRequest(attach=hello))
    with pytest.raises(Refusal) as caught:
        await worker.next("nothing")
    assert caught.value.reason == "attach_out_of_order"


async def test_a_call_without_a_workers_token_is_refused(runtime: Replica, who: Somebody) -> None:
    forged = Somebody(SigningKey("unknown", who.key.private_key))
    for metadata, reason in (([], "missing_authorization"), (forged.as_worker(), "invalid_token")):
        call = runtime.workers.Attach(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert reason in str(caught.value.trailing_metadata())


# ------------------------------------------------------------------------------------------------- replicas


async def test_a_run_created_anywhere_reaches_a_worker_attached_elsewhere(
    runtime_database: Database, who: Somebody
) -> None:
    settings = runtime_settings(runtime_database, workers=replace(PATIENT_WORKERS, dispatch_interval_ms=60_000))
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        workers = [await attached(one, who, slots=1), await attached(two, who, slots=1)]
        runs = {(await one.create(who, f"k{n}")).run_id for n in range(2)}
        async with asyncio.timeout(60):
            assigned = {(await worker.next("assignment")).assignment.run.run_id for worker in workers}
        assert assigned == runs


async def test_a_replica_that_goes_away_sends_its_workers_elsewhere(runtime_database: Database, who: Somebody) -> None:
    limits = WorkerSettings(drain_reconnect_ms=77)
    async with replica(runtime_settings(runtime_database, workers=limits), who.key) as runtime:
        worker = await attached(runtime, who)
        reading = asyncio.create_task(worker.next("draining"))
    assert (await reading).draining.reconnect_after_ms == 77


# ------------------------------------------------------------------------------------------------- clocks, and the lost


_STEP = """
UPDATE runtime.workers SET last_heartbeat_at = last_heartbeat_at - $1 * interval '1 second',
                           attached_at = attached_at - $1 * interval '1 second'
"""


@pytest.mark.parametrize("seconds", [60, -60])
async def test_a_step_of_the_databases_clock_loses_no_worker(
    runtime_database: Database, quick: Replica, who: Somebody, seconds: int
) -> None:
    """Seen from after the step, everything that was recorded before is so much older."""
    worker = await attached(quick, who)
    run_id = await started(quick, who, worker)
    beating = asyncio.create_task(keep_beating(worker))
    admin = await asyncpg.connect(runtime_database.admin)
    try:
        for _ in range(5):
            await admin.execute(_STEP, seconds)
            await asyncio.sleep(0.1)
    finally:
        await admin.close()
    await asyncio.sleep(QUICK_WORKERS.lost_after_ms / 1000)
    beating.cancel()
    assert (await quick.run(who, run_id)).attempt == 1
    assert (await worker.append(run_id, 1, "a", text(b"x"))).first_seq == 3


async def test_a_lost_worker_gets_nothing_though_its_stream_still_stands(
    runtime_database: Database, runtime: Replica, who: Somebody
) -> None:
    """The database says that it is lost, its replica has not heard yet."""
    limits = replace(PATIENT_WORKERS, watch_interval_ms=250)
    async with replica(runtime_settings(runtime_database, workers=limits), who.key) as slow:
        worker = await attached(slow, who)
        admin = await asyncpg.connect(runtime_database.admin)
        await admin.execute("UPDATE runtime.workers SET status = 'lost' WHERE worker_id = $1", worker.worker_id)
        await admin.close()
        run_id = (await slow.create(who)).run_id
        with pytest.raises(Refusal) as caught:
            await worker.next("nothing: it is lost, and its stream ends")
        assert caught.value.reason == "worker_lost"
        assert (await slow.run(who, run_id)).status == run_pb2.RUN_STATUS_CREATED
        another = await attached(slow, who)
        assert (await another.next("assignment")).assignment.run.attempt == 1


@pytest.mark.parametrize("changes", [{"heartbeat_interval_ms": 15_000}, {"watch_interval_ms": 7_500}])
def test_limits_that_leave_no_time_to_be_heard_are_refused(changes: dict[str, int]) -> None:
    assert [variable for variable, _ in WorkerSettings(**changes).problems()] == ["OA_WORKER_LOST_MS"]
    assert not list(WorkerSettings().problems())
