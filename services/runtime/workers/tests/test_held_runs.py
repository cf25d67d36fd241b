"""A worker reads the log of a run that it holds, page by page; nobody else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openagents.runtime.v1 import event_pb2, worker_service_pb2
from services.runtime.log.store.reads import PostgresReads
from services.runtime.tests.rig import (
    FakeWorker,
    Replica,
    Somebody,
    finish,
    refusal_of_call,
    text,
)

STEP = event_pb2.StepCompleted(ordinal=1, name="quote", fingerprint=bytes(32), result_json='{"price":12.5}')


def asked(run_id: str, epoch: int = 1, after_seq: int = 0) -> worker_service_pb2.ReadHeldRunRequest:
    return worker_service_pb2.ReadHeldRunRequest(run_id=run_id, lease_epoch=epoch, after_seq=after_seq)


async def page(runtime: Replica, who: Somebody, request: worker_service_pb2.ReadHeldRunRequest) -> list[Any]:
    answer = await runtime.workers.ReadHeldRun(request, metadata=who.as_worker())
    return [event_pb2.RunEvent.FromString(data) for data in answer.events]


async def held(runtime: Replica, who: Somebody) -> tuple[FakeWorker, str]:
    worker = FakeWorker(runtime, who)
    await worker.attach()
    run_id = (await runtime.create(who)).run_id
    assert (await worker.next("assignment")).assignment.run.run_id == run_id
    return worker, run_id


async def test_the_holder_reads_what_stands_in_the_log(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await held(runtime, who)
    await worker.append(run_id, 1, "a", text(b"one"), event_pb2.EventBody(step_completed=STEP))
    events = await page(runtime, who, asked(run_id))
    kinds = [event.body.WhichOneof("kind") for event in events]
    assert kinds == ["run_created", "run_started", "text_delta", "step_completed"]
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert events[-1].body.step_completed == STEP
    assert [event.seq for event in await page(runtime, who, asked(run_id, after_seq=3))] == [4]
    assert await page(runtime, who, asked(run_id, after_seq=4)) == []


async def test_the_newest_event_of_a_type_is_read_alone(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await held(runtime, who)
    saved = [event_pb2.CheckpointSaved(number=number, state_json=str(number)) for number in (1, 2, 3)]
    await worker.append(run_id, 1, "a", *(event_pb2.EventBody(checkpoint_saved=one) for one in saved), text(b"one"))

    def newest(*types: str, after_seq: int = 0) -> worker_service_pb2.ReadHeldRunRequest:
        return worker_service_pb2.ReadHeldRunRequest(
            run_id=run_id, lease_epoch=1, after_seq=after_seq, types=types, newest_only=True
        )

    (event,) = await page(runtime, who, newest("checkpoint.saved"))
    assert (event.seq, event.body.checkpoint_saved) == (5, saved[-1])
    assert [event.seq for event in await page(runtime, who, newest())] == [6]
    assert [event.seq for event in await page(runtime, who, newest("checkpoint.saved", after_seq=4))] == [5]
    for nothing in (newest("checkpoint.saved", after_seq=5), newest("step.completed"), newest(after_seq=6)):
        assert await page(runtime, who, nothing) == []


async def test_a_page_ends_where_its_limits_are(
    runtime: Replica, who: Somebody, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, run_id = await held(runtime, who)
    await worker.append(run_id, 1, "a", *(text(b"x" * 100) for _ in range(5)))
    read_page, limits = PostgresReads.run_page, []

    async def small(self: PostgresReads, run_id: str, after_seq: int, max_events: int, max_bytes: int) -> Any:
        limits.append((max_events, max_bytes))
        return await read_page(self, run_id, after_seq, 2, max_bytes)

    monkeypatch.setattr(PostgresReads, "run_page", small)
    seen: list[int] = []
    while more := await page(runtime, who, asked(run_id, after_seq=len(seen))):
        assert len(more) <= 2
        seen += [event.seq for event in more]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert set(limits) == {(1_000, 1 << 20)}


async def test_whoever_lost_the_lease_reads_nothing(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await held(runtime, who)
    goodbye = worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye())
    await worker.write(goodbye)
    await worker.leave()
    refused = await refusal_of_call(runtime.workers.ReadHeldRun(asked(run_id), metadata=who.as_worker()))
    assert (refused.reason, refused.metadata) == ("stale_epoch", {"current_epoch": "1"})
    successor = FakeWorker(runtime, who)
    await successor.attach()
    assert (await successor.next("assignment")).assignment.lease_epoch == 2
    refused = await refusal_of_call(runtime.workers.ReadHeldRun(asked(run_id), metadata=who.as_worker()))
    assert (refused.reason, refused.metadata) == ("stale_epoch", {"current_epoch": "2"})
    assert len(await page(runtime, who, asked(run_id, epoch=2))) == 4


async def test_nobody_else_learns_that_there_is_such_a_run(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await held(runtime, who)
    colleague = replace(who, account_id=Somebody(who.key).account_id)
    stranger = Somebody(who.key)
    for other in (colleague, stranger):
        refused = await refusal_of_call(runtime.workers.ReadHeldRun(asked(run_id), metadata=other.as_worker()))
        assert (refused.reason, refused.field) == ("not_found", "run_id")
    await worker.append(run_id, 1, "end", finish(event_pb2.RUN_OUTCOME_SUCCEEDED))
    refused = await refusal_of_call(runtime.workers.ReadHeldRun(asked(run_id), metadata=who.as_worker()))
    assert refused.reason == "stale_epoch"
