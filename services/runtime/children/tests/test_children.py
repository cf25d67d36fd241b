"""Runs that are started by runs, over real gRPC: whose they are, what their parents hear, and their end."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_runlog.authority.commands import TellChild
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import event_pb2, run_pb2, worker_service_pb2
from services.runtime.config import ChildSettings, RunSettings
from services.runtime.tests.rig import (
    FakeWorker,
    Replica,
    Somebody,
    attached,
    cancel,
    finish,
    refusal_of_call,
    refusing,
    replica,
    runtime_settings,
    text,
    until_status,
)


def asked(run_id: str, child_id: str = "c1", epoch: int = 1, **changes: Any) -> worker_service_pb2.StartChildRequest:
    spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=changes.pop("argv", ["true"])))
    return worker_service_pb2.StartChildRequest(
        run_id=run_id, lease_epoch=epoch, child_id=child_id, spec=spec, **changes
    )


async def start(runtime: Replica, who: Somebody, request: worker_service_pb2.StartChildRequest) -> Any:
    return await runtime.workers.StartChild(request, metadata=who.as_worker())


async def parent(runtime: Replica, who: Somebody, slots: int = 4) -> tuple[FakeWorker, str]:
    worker = await attached(runtime, who, slots=slots)
    run_id = (await runtime.create(who, "parent")).run_id
    assert (await worker.next("assignment")).assignment.run.run_id == run_id
    return worker, run_id


async def events(
    runtime: Replica, who: Somebody, run_id: str, epoch: int = 1, types: tuple[str, ...] = ()
) -> list[event_pb2.EventBody]:
    request = worker_service_pb2.ReadHeldRunRequest(run_id=run_id, lease_epoch=epoch, types=types)
    answer = await runtime.workers.ReadHeldRun(request, metadata=who.as_worker())
    return [event_pb2.RunEvent.FromString(data).body for data in answer.events]


# ------------------------------------------------------------------------------------------------- a child


async def test_a_child_belongs_to_its_parents_owner_and_is_started_once(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await parent(runtime, who)
    first = await start(runtime, who, asked(run_id))
    again = await start(runtime, who, asked(run_id))
    assert (again.child_run_id, first.already_started, again.already_started) == (first.child_run_id, False, True)
    child = await runtime.run(who, first.child_run_id)
    assert (child.parent_run_id, child.user_id, child.org_id) == (run_id, who.user_id, who.org_id)
    assert (await start(runtime, who, asked(run_id, "c2"))).child_run_id != first.child_run_id
    other = await refusal_of_call(start(runtime, who, asked(run_id, argv=["false"])))
    assert (other.reason, other.field) == ("idempotency_conflict", "idempotency_key")
    assert (await worker.next("assignment")).assignment.run.run_id == first.child_run_id


async def test_a_parent_hears_how_its_child_has_ended(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await parent(runtime, who)
    child_id = (await start(runtime, who, asked(run_id))).child_run_id
    assert (await worker.next("assignment")).assignment.run.run_id == child_id
    await worker.append(child_id, 1, "end", text(b"x"), finish(event_pb2.RUN_OUTCOME_FAILED))
    news = (await worker.next("news")).news
    assert (news.run_id, news.lease_epoch) == (run_id, 1)
    told = (await events(runtime, who, run_id))[-1].child_finished
    assert (told.run_id, told.finish.outcome) == (child_id, event_pb2.RUN_OUTCOME_FAILED)


async def test_what_ended_while_nobody_looked_is_told_later_and_once(runtime_database: Database, who: Somebody) -> None:
    """The replica that stored the end of the child is gone; a worker takes the parent over."""
    settings = runtime_settings(runtime_database)
    async with replica(settings, who.key) as runtime:
        worker, run_id = await parent(runtime, who)
        child_id = (await start(runtime, who, asked(run_id))).child_run_id
        await worker.next("assignment")
        await worker.append(child_id, 1, "end", finish())
    async with replica(settings, who.key) as one, replica(settings, who.key):
        back = FakeWorker(one, who, worker.worker_id)
        await back.attach(worker_service_pb2.HeldLease(run_id=run_id, lease_epoch=1))
        await until_status(one, who, child_id, run_pb2.RUN_STATUS_SUCCEEDED)
        while not any(body.HasField("child_finished") for body in await events(one, who, run_id)):
            await asyncio.sleep(0.05)
        told = [body for body in await events(one, who, run_id) if body.HasField("child_finished")]
        assert [body.child_finished.run_id for body in told] == [child_id]


def dies(*_: Any) -> None:
    raise Refusal("unavailable", "this replica has died; try again")


async def test_a_start_that_the_parents_log_lacks_is_recorded_before_the_next_worker_reads(
    runtime: Replica, who: Somebody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica dies after it has created the child, and before it has told the parent."""
    worker, run_id = await parent(runtime, who, slots=1)
    request = asked(run_id)
    request.spec.ClearField("exec")
    request.spec.adapter, request.spec.agent.input_json = "quote", '{"of": "tea"}'
    with monkeypatch.context() as patched:
        patched.setattr(TellChild, "of", dies)
        assert (await refusal_of_call(start(runtime, who, request))).reason == "unavailable"
    assert not [body for body in await events(runtime, who, run_id) if body.HasField("child_started")]
    await worker.write(worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye()))
    assert await given(await attached(runtime, who, slots=1)) == run_id
    assert await events(runtime, who, run_id, 2, ("step.completed",)) == []
    for types in (("child.started",), ()):  # and only once
        seen = await events(runtime, who, run_id, 2, types)
        told = [body.child_started for body in seen if body.HasField("child_started")]
        assert [(one.child_id, one.adapter) for one in told] == [("c1", "quote")]
        assert told[0].input_sha256 == hashlib.sha256(b'{"of": "tea"}').digest()
    request.lease_epoch = 2
    again = await start(runtime, who, request)
    assert (again.child_run_id, again.already_started) == (told[0].run_id, True)


async def test_a_parent_that_is_ending_is_told_of_no_start(
    runtime: Replica, who: Somebody, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, run_id = await parent(runtime, who, slots=1)
    with monkeypatch.context() as patched:
        patched.setattr(TellChild, "of", dies)
        await refusal_of_call(start(runtime, who, asked(run_id)))
    await worker.write(worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye()))
    await worker.leave()
    assert await given(await attached(runtime, who, slots=1)) == run_id
    await cancel(runtime, who, run_id)
    assert [body for body in await events(runtime, who, run_id, 2) if body.HasField("run_cancel_requested")]
    assert not [body for body in await events(runtime, who, run_id, 2) if body.HasField("child_started")]


# ------------------------------------------------------------------------------------------------- its end


@pytest.mark.parametrize("how", ["canceled", "failed", "succeeded"])
async def test_a_child_ends_with_its_parent_if_it_is_to(runtime: Replica, who: Somebody, how: str) -> None:
    worker, run_id = await parent(runtime, who, slots=1)  # so no child starts before its parent has ended
    ends = (await start(runtime, who, asked(run_id, "c1", cancel_with_parent=True))).child_run_id
    stays = (await start(runtime, who, asked(run_id, "c2"))).child_run_id
    if how == "canceled":
        await cancel(runtime, who, run_id)
        await worker.next("cancel")
    else:
        outcome = event_pb2.RUN_OUTCOME_FAILED if how == "failed" else event_pb2.RUN_OUTCOME_SUCCEEDED
        await worker.write(worker_service_pb2.AttachRequest(drain=worker_service_pb2.WorkerDrain()))
        await worker.append(run_id, 1, "end", finish(outcome))
    ended = await until_status(runtime, who, ends, run_pb2.RUN_STATUS_CANCELED)
    assert (ended.finish.reason, ended.attempt) == ("canceled", 0)
    assert (await runtime.run(who, stays)).status == run_pb2.RUN_STATUS_CREATED


# ------------------------------------------------------------------------------------------------- refusals


async def test_only_the_holder_starts_children_and_only_of_a_run_that_goes_on(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await parent(runtime, who)
    for stranger in (Somebody(who.key), replace(who, account_id=new_id("sva"))):
        assert (await refusal_of_call(start(runtime, stranger, asked(run_id)))).reason == "not_found"
    assert (await refusal_of_call(start(runtime, who, asked(run_id, epoch=2)))).reason == "stale_epoch"
    await cancel(runtime, who, run_id)
    await worker.next("cancel")
    assert (await refusal_of_call(start(runtime, who, asked(run_id)))).reason == "invalid_transition"


@pytest.mark.parametrize(("field", "request_"), [("child_id", asked("run_x", "C 1")), ("spec.exec.argv", None)])
async def test_what_makes_no_child_is_refused_with_its_field(
    runtime: Replica, who: Somebody, field: str, request_: worker_service_pb2.StartChildRequest | None
) -> None:
    _, run_id = await parent(runtime, who)
    bad = request_ or asked(run_id, argv=[])
    bad.run_id = run_id
    refusal: Refusal = await refusal_of_call(start(runtime, who, bad))
    assert (refusal.reason, refusal.field) == ("invalid_value" if request_ else "missing_field", field)


def keyed(key: str, limit: int = 1) -> event_pb2.QueuePolicy:
    return event_pb2.QueuePolicy(concurrency=event_pb2.Concurrency(key=key, limit=limit))


@pytest.mark.parametrize("generations", [1, 2])
async def test_a_child_does_not_wait_for_a_run_above_it_by_their_key(
    runtime: Replica, who: Somebody, generations: int
) -> None:
    worker = await attached(runtime, who)
    above = run_id = (await runtime.create(who, "parent", queue=keyed("gpu", 5))).run_id
    await worker.next("assignment")
    for _ in range(generations - 1):
        above = (await start(runtime, who, asked(above))).child_run_id
        assert (await worker.next("assignment")).assignment.run.run_id == above
    request = asked(above, "last")
    request.spec.queue.CopyFrom(keyed("gpu", 5))
    refusal = await refusal_of_call(start(runtime, who, request))
    assert (refusal.reason, refusal.field) == ("invalid_value", "spec.queue.concurrency.key")
    request.spec.queue.CopyFrom(keyed("other"))
    child_id = (await start(runtime, who, request)).child_run_id
    assert (await worker.next("assignment")).assignment.run.run_id == child_id
    if generations > 1:
        await worker.append(run_id, 1, "end", finish())
        request.child_id = "next"
        request.spec.queue.CopyFrom(keyed("gpu"))
        assert (await start(runtime, who, request)).child_run_id, "a run that has ended is in nobody's way"


@pytest.mark.parametrize("policy", [event_pb2.THREAD_POLICY_ENQUEUE, event_pb2.THREAD_POLICY_INTERRUPT])
async def test_a_child_does_not_wait_for_a_run_above_it_in_their_thread(
    runtime: Replica, who: Somebody, policy: event_pb2.ThreadPolicy.ValueType
) -> None:
    worker = await attached(runtime, who)
    run_id = (await runtime.create(who, thread=("talk", event_pb2.THREAD_POLICY_UNSPECIFIED))).run_id
    await worker.next("assignment")
    request = asked(run_id)
    request.spec.thread_id, request.spec.thread_policy = "talk", policy
    refusal = await refusal_of_call(start(runtime, who, request))
    assert (refusal.reason, refusal.field) == ("invalid_value", "spec.thread_id")
    request.spec.thread_policy = event_pb2.THREAD_POLICY_UNSPECIFIED
    child_id = (await start(runtime, who, request)).child_run_id
    assert (await worker.next("assignment")).assignment.run.run_id == child_id, "beside each other they may go on"
    assert (await runtime.run(who, run_id)).status == run_pb2.RUN_STATUS_RUNNING


# ------------------------------------------------------------------------------------------------- limits


async def given(worker: FakeWorker) -> str:
    """The run that the worker gets next, whatever it hears meanwhile of those that it has."""
    async with asyncio.timeout(PATIENCE_S):
        while (message := await refusing(worker.call.read())).WhichOneof("message") == "news":
            pass
    return str(message.assignment.run.run_id)


async def end(runtime: Replica, who: Somebody, run_id: str) -> None:
    """The run ends, and its worker's stream has nothing of it."""
    request = worker_service_pb2.AppendEventsRequest(run_id=run_id, lease_epoch=1, idempotency_key="end")
    request.events.append(finish())
    await runtime.workers.AppendEvents(request, metadata=who.as_worker())


async def lend(runtime: Replica, who: Somebody, worker: FakeWorker, parents: list[str]) -> list[str]:
    """Each of these starts a child, and the worker gets it. The children."""
    children = [(await start(runtime, who, asked(run_id))).child_run_id for run_id in parents]
    assert {await given(worker) for _ in parents} == set(children)
    return children


@pytest.mark.parametrize("limits", [{"max_running_per_org": 2}, {"max_running_per_person": 2}], ids=["org", "person"])
async def test_parents_that_fill_a_limit_leave_their_places_to_their_children(
    runtime_database: Database, who: Somebody, limits: dict[str, int]
) -> None:
    settings = runtime_settings(runtime_database, runs=RunSettings(**limits))
    async with replica(settings, who.key) as runtime:
        worker = await attached(runtime, who, slots=16)
        runs = [(await runtime.create(who, f"k{n}")).run_id for n in range(20)]
        assert {await given(worker) for _ in range(2)} == set(runs[:2])
        children = await lend(runtime, who, worker, runs[:2])
        lowest = await lend(runtime, who, worker, children)
        second = (await start(runtime, who, asked(runs[0], "c2"))).child_run_id
        # A run leaves its place to one at a time, and a place that is free is for the oldest run.
        await end(runtime, who, lowest[1])
        await end(runtime, who, children[1])
        assert (await runtime.run(who, second)).status == run_pb2.RUN_STATUS_CREATED
        await end(runtime, who, runs[1])
        assert await given(worker) == runs[2]
        await end(runtime, who, lowest[0])
        await end(runtime, who, children[0])
        assert await given(worker) == second
        assert (await runtime.run(who, runs[3])).status == run_pb2.RUN_STATUS_CREATED


async def test_a_run_that_lost_its_worker_takes_back_the_place_that_its_child_has(
    runtime_database: Database, who: Somebody
) -> None:
    settings = runtime_settings(runtime_database, runs=RunSettings(max_running_per_org=1))
    async with replica(settings, who.key) as runtime:
        one, other = await attached(runtime, who, slots=1), await attached(runtime, who, slots=1)
        run_id = (await runtime.create(who, "parent")).run_id
        held = await until_status(runtime, who, run_id, run_pb2.RUN_STATUS_RUNNING)
        holder, idle = (one, other) if held.worker_id == one.worker_id else (other, one)
        assert await given(holder) == run_id
        child_id = (await start(runtime, who, asked(run_id))).child_run_id
        assert await given(idle) == child_id
        await runtime.create(who, "waits")
        await holder.write(worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye()))
        third = await attached(runtime, who, slots=1)
        assert await given(third) == run_id


async def test_children_that_are_started_at_once_on_two_replicas_are_no_more_than_may_be(
    runtime_database: Database, who: Somebody
) -> None:
    settings = replace(runtime_settings(runtime_database), children=ChildSettings(max_children=3))
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        _, run_id = await parent(one, who, slots=1)

        async def started(number: int) -> str:
            try:
                await refusing(start((one, two)[number % 2], who, asked(run_id, f"c{number}")))
            except Refusal as refusal:
                return refusal.reason
            return "started"

        outcomes = await asyncio.gather(*(started(number) for number in range(10)))
        assert sorted(outcomes) == ["limit_reached"] * 7 + ["started"] * 3


async def test_a_run_has_so_many_children_and_generations(runtime_database: Database, who: Somebody) -> None:
    settings = replace(runtime_settings(runtime_database), children=ChildSettings(max_children=2, max_depth=2))
    async with replica(settings, who.key) as runtime:
        worker, run_id = await parent(runtime, who)
        first = (await start(runtime, who, asked(run_id, "c1"))).child_run_id
        await start(runtime, who, asked(run_id, "c2"))
        third = await refusal_of_call(start(runtime, who, asked(run_id, "c3")))
        assert (third.reason, dict(third.metadata)) == ("limit_reached", {"limit": "2"})
        assert (await start(runtime, who, asked(run_id, "c1"))).already_started, "one that is there is no new one"
        got = {(await worker.next("assignment")).assignment.run.run_id for _ in range(2)}
        assert first in got
        grandchild = (await start(runtime, who, asked(first))).child_run_id
        assert (await worker.next("assignment")).assignment.run.run_id == grandchild
        assert (await refusal_of_call(start(runtime, who, asked(grandchild)))).reason == "limit_reached"


async def test_a_child_that_nothing_can_start_is_refused_with_its_field(runtime: Replica, who: Somebody) -> None:
    _, run_id = await parent(runtime, who)
    refused = await refusal_of_call(start(runtime, who, asked(run_id, argv=[""])))
    assert (refused.reason, refused.field) == ("missing_field", "spec.exec.argv[0]")
