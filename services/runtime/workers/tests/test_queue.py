"""The queue over real gRPC: who is next, who waits, whose time is over, and what is tried again."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import accumulate
from typing import Any, cast

import asyncpg
import pytest
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.postgres.pool import Postgres
from oa_platform.system.ids import new_id
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from oa_testing.waiting import eventually
from openagents.runtime.v1 import event_pb2, run_pb2, worker_service_pb2
from services.runtime.config import RunSettings
from services.runtime.tests.rig import (
    PATIENT_WORKERS,
    FakeWorker,
    Replica,
    Somebody,
    attached,
    cancel,
    finish,
    refusal_of_call,
    replica,
    runtime_settings,
    text,
    until_status,
)
from services.runtime.workers.app.ports import Waiting, WorkerStore
from services.runtime.workers.app.queue_watch import QueueWatch
from services.runtime.workers.metrics import OLDEST_WAITING_SECONDS, RUNS_TIMED_OUT, RUNS_WAITING
from services.runtime.workers.store.workers import PostgresWorkers

FAILED = event_pb2.RUN_OUTCOME_FAILED
HOUR_MS = 3_600_000


def queue(**fields: Any) -> event_pb2.QueuePolicy:
    return event_pb2.QueuePolicy(**fields)


def keyed(key: str, limit: int = 1) -> event_pb2.QueuePolicy:
    return queue(concurrency=event_pb2.Concurrency(key=key, limit=limit))


def failure(reason: str = "agent_error") -> event_pb2.EventBody:
    return event_pb2.EventBody(run_finished=event_pb2.RunFinished(outcome=FAILED, reason=reason))


def colleague(who: Somebody) -> Somebody:
    """Another person of the same org."""
    return replace(who, user_id=new_id("usr"))


async def assigned(worker: FakeWorker) -> tuple[str, int]:
    """The run that the worker gets next, and the lease."""
    assignment = (await worker.next("assignment")).assignment
    return assignment.run.run_id, assignment.lease_epoch


async def order(worker: FakeWorker, runs: int) -> list[str]:
    """The runs that a worker with one slot gets, one after the other."""
    found = []
    for _ in range(runs):
        run_id, epoch = await assigned(worker)
        found.append(run_id)
        await worker.append(run_id, epoch, "end", finish())
    return found


async def gets_nothing(worker: FakeWorker, runtime: Replica, who: Somebody) -> None:
    """A run that nobody holds back overtakes all that wait: when it comes, the others had their chance."""
    free = await runtime.create(who, new_id("key"))
    assert (await assigned(worker))[0] == free.run_id
    await worker.append(free.run_id, 1, "end", finish())


# ------------------------------------------------------------------------------------------------- who is next


async def test_the_most_urgent_is_next_and_of_the_others_the_oldest(runtime: Replica, who: Somebody) -> None:
    priorities = [0, -5, 7, 0, 7]
    runs = [
        (await runtime.create(who, f"k{n}", queue=queue(priority=priority))).run_id
        for n, priority in enumerate(priorities)
    ]
    worker = await attached(runtime, who, slots=1)
    assert await order(worker, 5) == [runs[2], runs[4], runs[0], runs[3], runs[1]]


async def test_who_has_many_runs_waiting_leaves_room_for_others(runtime: Replica, who: Somebody) -> None:
    other = colleague(who)
    many = [(await runtime.create(who, f"k{n}")).run_id for n in range(6)]
    few = [(await runtime.create(other, f"k{n}")).run_id for n in range(2)]
    worker = await attached(runtime, who, slots=1)
    assert await order(worker, 8) == [many[0], few[0], many[1], few[1], *many[2:]]


async def test_a_persons_running_runs_count(runtime: Replica, who: Somebody) -> None:
    """A person with two runs at workers waits for one with none."""
    worker = await attached(runtime, who, slots=2)
    for number in range(2):
        await runtime.create(who, f"running{number}")
    held = [await assigned(worker) for _ in range(2)]
    mine = await runtime.create(who, "waiting")
    theirs = await runtime.create(colleague(who), "waiting")
    await worker.append(*held[0], "end", finish())
    assert (await assigned(worker))[0] == theirs.run_id
    await worker.append(*held[1], "end", finish())
    assert (await assigned(worker))[0] == mine.run_id


# ------------------------------------------------------------------------------------------------- how many at a time


async def test_runs_with_a_key_run_as_many_at_a_time_as_they_say(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who, slots=8)
    runs = [(await runtime.create(who, f"k{n}", queue=keyed("deploy", 2))).run_id for n in range(4)]
    other = (await runtime.create(colleague(who), "other", queue=keyed("gpu"))).run_id
    first = dict([await assigned(worker) for _ in range(3)])
    assert set(first) == {runs[0], runs[1], other}
    await gets_nothing(worker, runtime, who)
    for done, following in ((runs[0], runs[2]), (runs[2], runs[3])):
        await worker.append(done, 1, "end", finish())
        assert (await assigned(worker))[0] == following


async def test_a_key_is_that_of_the_org(runtime: Replica, who: Somebody) -> None:
    stranger = Somebody(who.key)
    mine, theirs = await attached(runtime, who), await attached(runtime, stranger)
    run = await runtime.create(who, queue=keyed("deploy"))
    assert (await assigned(mine))[0] == run.run_id
    run = await runtime.create(stranger, queue=keyed("deploy"))
    assert (await assigned(theirs))[0] == run.run_id


@pytest.mark.parametrize("limits", [{"max_running_per_org": 2}, {"max_running_per_person": 2}], ids=["org", "person"])
async def test_an_org_and_a_person_run_as_many_at_a_time_as_is_set(
    runtime_database: Database, who: Somebody, limits: dict[str, int]
) -> None:
    settings = runtime_settings(runtime_database, runs=RunSettings(**limits))
    async with replica(settings, who.key) as runtime:
        worker = await attached(runtime, who, slots=8)
        runs = [(await runtime.create(who, f"k{n}")).run_id for n in range(4)]
        assert {(await assigned(worker))[0] for _ in range(2)} == set(runs[:2])
        theirs = (await runtime.create(colleague(who), "theirs")).run_id
        if "max_running_per_person" in limits:
            assert (await assigned(worker))[0] == theirs, "another person's runs don't wait"
        await worker.append(runs[0], 1, "end", finish())
        # The person has another run with a worker, the colleague none.
        following = theirs if "max_running_per_org" in limits else runs[2]
        assert (await assigned(worker))[0] == following


class Greedy:
    """A worker that ends each run a moment after it got it, and takes note of how many it has."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker
        self.ended = 0
        self.changes: list[tuple[float, int]] = []

    async def work(self) -> None:
        """Until canceled."""
        async with asyncio.TaskGroup() as ending:
            while True:
                message: Any = await self._worker.call.read()
                match message.WhichOneof("message"):
                    case "assignment":
                        self.changes.append((time.monotonic(), 1))
                        ending.create_task(self._end(message.assignment.run.run_id, message.assignment.lease_epoch))
                    case "appended":
                        self.ended += 1

    async def _end(self, run_id: str, epoch: int) -> None:
        await asyncio.sleep(0.01)
        self.changes.append((time.monotonic(), -1))  # it counts on until it has ended
        append = worker_service_pb2.AppendEventsRequest(
            request_id=1, run_id=run_id, lease_epoch=epoch, idempotency_key="end", events=[finish()]
        )
        await self._worker.write(worker_service_pb2.AttachRequest(append=append))


async def test_two_replicas_together_pass_no_limit(runtime_database: Database, who: Somebody) -> None:
    """Each has a worker with room for all of them, and both look at the same time; one run ends, one begins."""
    settings = runtime_settings(runtime_database)
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(settings, who.key)) for _ in range(2)]
        workers = [await attached(one, who, slots=50) for one in replicas]
        greedy = [Greedy(worker) for worker in workers]
        tasks = [asyncio.create_task(one.work()) for one in greedy]
        await asyncio.gather(*(replicas[n % 2].create(who, f"k{n}", queue=keyed("deploy", 2)) for n in range(40)))
        await eventually(lambda: sum(one.ended for one in greedy) == 40 or any(task.done() for task in tasks))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(one.ended for one in greedy) == 40
    spans = sorted((at, change) for one in greedy for at, change in one.changes)
    at_a_time = list(accumulate(change for _, change in spans))
    assert max(at_a_time) == 2, "the third one was given away"


# ------------------------------------------------------------------------------------------------- times


async def test_a_run_waits_for_its_time(runtime: Replica, who: Somebody, runtime_database: Database) -> None:
    worker = await attached(runtime, who)
    policy = in_future(0.7)
    run = await runtime.create(who, queue=policy)
    assert await assigned(worker) == (run.run_id, 1)
    created, started = await recorded_times(runtime_database, run.run_id)
    assert started >= policy.not_before_time.ToNanoseconds() / 10**9 - 1e-6
    assert created < started


async def test_a_run_whose_time_comes_before_the_next_check_need_not_wait_for_that(
    runtime_database: Database, who: Somebody
) -> None:
    workers = replace(PATIENT_WORKERS, dispatch_interval_ms=60_000)
    async with replica(runtime_settings(runtime_database, workers=workers), who.key) as runtime:
        worker = await attached(runtime, who)
        policy = in_future(0.7)
        policy.start_timeout_ms = 50_000  # the next check would come too late
        run = await runtime.create(who, queue=policy)
        gets = asyncio.create_task(assigned(worker))
        fails = asyncio.create_task(until_status(runtime, who, run.run_id, run_pb2.RUN_STATUS_FAILED))
        await asyncio.wait({gets, fails}, return_when=asyncio.FIRST_COMPLETED)
        fails.cancel()
        assert gets.done()
        assert gets.result() == (run.run_id, 1)


async def test_a_run_whose_time_has_not_come_keeps_nobody_waiting(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    await runtime.create(who, queue=in_future(3600))
    await gets_nothing(worker, runtime, who)


def in_future(seconds: float) -> event_pb2.QueuePolicy:
    """Not before so many seconds from now."""
    policy = queue()
    policy.not_before_time.FromNanoseconds(time.time_ns() + int(seconds * 10**9))
    return policy


async def recorded_times(database: Database, run_id: str) -> list[float]:
    admin = await asyncpg.connect(database.admin)
    rows = await admin.fetch("SELECT recorded_at FROM runtime.events WHERE run_id = $1 ORDER BY seq", run_id)
    await admin.close()
    return [row["recorded_at"].timestamp() for row in rows]


async def test_a_run_that_no_worker_starts_in_time_fails(runtime: Replica, who: Somebody) -> None:
    run = await runtime.create(who, queue=queue(start_timeout_ms=100))
    ended = await until_status(runtime, who, run.run_id, run_pb2.RUN_STATUS_FAILED)
    assert (ended.finish.reason, ended.attempt) == ("start_timeout", 0)
    worker = await attached(runtime, who)
    await gets_nothing(worker, runtime, who)


async def test_a_run_that_takes_too_long_is_taken_from_its_worker(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    run = await runtime.create(who, queue=queue(start_timeout_ms=HOUR_MS, run_timeout_ms=100))
    run_id, epoch = await assigned(worker)
    lost = (await worker.next("lease_lost")).lease_lost
    assert (lost.run_id, lost.lease_epoch) == (run.run_id, epoch)
    ended = await until_status(runtime, who, run_id, run_pb2.RUN_STATUS_FAILED)
    assert ended.finish.reason == "run_timeout"
    late = await worker.append(run_id, epoch, "late", text(b"x"))
    assert late.reason == "stale_epoch"


# ------------------------------------------------------------------------------------------------- failures


async def test_a_failed_run_is_tried_again_after_its_pause(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    worker = await attached(runtime, who)
    retry = event_pb2.RetryPolicy(max_failures=3, initial_delay_ms=200)
    run = await runtime.create(who, queue=queue(retry=retry))
    assert await assigned(worker) == (run.run_id, 1)
    answer = await worker.append(run.run_id, 1, "end", text(b"x"), failure())
    assert (answer.first_seq, answer.last_seq) == (3, 4)
    assert await assigned(worker) == (run.run_id, 2)
    assert (await runtime.run(who, run.run_id)).attempt == 2
    again = await worker.append(run.run_id, 1, "end", text(b"x"), failure())
    assert again.already_appended, "the answer was lost, and the worker says it again"
    await worker.append(run.run_id, 2, "end2", failure())
    assert await assigned(worker) == (run.run_id, 3)
    await worker.append(run.run_id, 3, "end3", failure())
    ended = await until_status(runtime, who, run.run_id, run_pb2.RUN_STATUS_FAILED)
    assert (ended.finish.reason, ended.attempt) == ("agent_error", 3)
    _created, _started, _text, failed, restarted, *_ = await recorded_times(runtime_database, run.run_id)
    assert restarted - failed >= 0.2


async def test_a_run_between_two_attempts_is_canceled_at_once(runtime: Replica, who: Somebody) -> None:
    worker = await attached(runtime, who)
    retry = event_pb2.RetryPolicy(max_failures=3, initial_delay_ms=HOUR_MS)
    run = await runtime.create(who, queue=queue(retry=retry))
    await assigned(worker)
    await worker.append(run.run_id, 1, "end", failure())
    assert (await cancel(runtime, who, run.run_id)).status == run_pb2.RUN_STATUS_CANCELED


async def test_a_waiting_retry_outlives_its_replica(runtime_database: Database, who: Somebody) -> None:
    settings = runtime_settings(runtime_database)
    retry = event_pb2.RetryPolicy(max_failures=3, initial_delay_ms=300)
    async with replica(settings, who.key) as runtime:
        worker = await attached(runtime, who)
        run = await runtime.create(who, queue=queue(retry=retry))
        await assigned(worker)
        # It takes nothing new from here on.
        await worker.write(worker_service_pb2.AttachRequest(drain=worker_service_pb2.WorkerDrain()))
        await worker.append(run.run_id, 1, "end", failure())
    async with replica(settings, who.key) as runtime:
        worker = await attached(runtime, who)
        assert await assigned(worker) == (run.run_id, 2)


# ------------------------------------------------------------------------------------------------- what is seen


async def test_what_waits_is_counted_and_for_how_long(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    async with Postgres(runtime_settings(runtime_database).database, "test") as postgres:
        store = PostgresWorkers(postgres, "rep_1")
        assert await store.waiting() == Waiting(0, 0.0)
        for number in range(2):
            await runtime.create(who, f"k{number}")
        await runtime.create(who, "later", queue=in_future(3600))
        admin = await asyncpg.connect(runtime_database.admin)
        await admin.execute(
            "UPDATE runtime.runs SET create_time = create_time - interval '1 hour' WHERE create_key = 'k1'"
        )
        await admin.close()
        await QueueWatch(store, 1).look()
        assert value_of(RUNS_WAITING) == 2, "one whose time has not come does not wait for a worker"
        assert 3600 <= value_of(OLDEST_WAITING_SECONDS) < 7200


@pytest.mark.parametrize("error", [Refusal("unavailable", "away"), RuntimeError("a defect")], ids=repr)
async def test_a_queue_that_cannot_be_seen_is_looked_at_again(error: Exception) -> None:
    class Away:
        looks = 0

        async def waiting(self) -> Waiting:
            Away.looks += 1
            if Away.looks == 3:
                raise KeyboardInterrupt
            raise error

    with capture_logs() as logs, pytest.raises(KeyboardInterrupt):
        await QueueWatch(cast("WorkerStore", Away()), 0).run()
    assert [line["event"] for line in logs] == ["queue_not_seen"] * 2


async def test_runs_that_time_out_are_counted(runtime: Replica, who: Somebody) -> None:
    before = value_of(RUNS_TIMED_OUT.labels("start_timeout"))
    run = await runtime.create(who, queue=queue(start_timeout_ms=50))
    await until_status(runtime, who, run.run_id, run_pb2.RUN_STATUS_FAILED)
    await eventually(lambda: value_of(RUNS_TIMED_OUT.labels("start_timeout")) == before + 1)


# ------------------------------------------------------------------------------------------------- bad input


async def test_a_policy_beyond_its_bounds_is_refused_and_nothing_is_created(runtime: Replica, who: Somebody) -> None:
    refusal = await refusal_of_call(runtime.create(who, queue=queue(priority=101)))
    assert (refusal.reason, refusal.field) == ("invalid_value", "spec.queue.priority")
    run = await runtime.create(who, queue=queue(priority=100))
    worker = await attached(runtime, who)
    assert (await assigned(worker))[0] == run.run_id


async def test_a_time_that_is_none_ends_no_stream(runtime: Replica, who: Somebody) -> None:
    """Of a request's deadline: the append is refused, and the worker goes on."""
    worker = await attached(runtime, who)
    run = await runtime.create(who)
    await assigned(worker)
    opened = event_pb2.RequestOpened(request_id="r1", kind=event_pb2.REQUEST_KIND_TEXT, title="Why?")
    opened.deadline_time.seconds = 10**18
    refused = await worker.append(run.run_id, 1, "ask", event_pb2.EventBody(request_opened=opened))
    assert refused.reason == "invalid_value"
    assert refused.field == "events[0].request_opened.deadline_time"
    assert (await worker.append(run.run_id, 1, "end", finish())).last_seq == 3
