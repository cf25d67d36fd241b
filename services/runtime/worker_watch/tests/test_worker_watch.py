"""How workers stand, as those who watch are told: by a scripted store, and by a real replica."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from oa_runlog.events import EventType
from oa_runlog.workers import WorkerStatus
from oa_testing.postgres import Database
from openagents.runtime.v1 import worker_pb2, worker_service_pb2
from openagents.runtime.v1 import worker_watch_service_pb2 as pb
from openagents.runtime.v1.worker_watch_service_pb2_grpc import WorkerWatchServiceStub
from services.runtime.log.domain.records import LogRecord
from services.runtime.tests.rig import (
    AS_GATEWAY,
    AS_PROJECTOR,
    FakeWorker,
    Replica,
    finish,
    refusal_of_call,
    replica,
    runtime_settings,
    somebody,
)
from services.runtime.worker_watch.app import WorkerWatch
from services.runtime.worker_watch.domain import StandingWorker
from services.runtime.worker_watch.limits import WorkerWatchLimits

WAIT_S = 60
A = StandingWorker("wrk_a", "sva_1", "org_1", "a", ("exec",), 4, WorkerStatus.RUNNING, 1, ())
B = replace(A, worker_id="wrk_b")
NEVER = WorkerWatchLimits(pause_ms=0, interval_ms=600_000)


class Workers:
    """A store that answers what it is told to."""

    def __init__(self, *workers: StandingWorker) -> None:
        self.workers = {worker.worker_id: worker for worker in workers}
        self.looks = 0

    def put(self, worker: StandingWorker) -> None:
        self.workers[worker.worker_id] = worker

    async def standing(self, worker_ids: Sequence[str]) -> list[StandingWorker]:
        self.looks += 1
        return [one for one in self.workers.values() if not one.has_ended or one.worker_id in worker_ids]


async def test_all_are_told_first_and_then_what_has_changed() -> None:
    store = Workers(A, B)
    watch = WorkerWatch(store, NEVER)
    told = watch.watch([])
    async with asyncio.timeout(WAIT_S):
        assert await anext(told) == [A, B]
        store.put(replace(B, run_ids=("run_1",)))
        watch.changed()
        assert await anext(told) == [replace(B, run_ids=("run_1",))]
        store.put(replace(A, status=WorkerStatus.LOST))
        watch.changed()
        assert await anext(told) == [replace(A, status=WorkerStatus.LOST)]
        store.put(replace(A, status=WorkerStatus.STARTING))
        watch.changed()
        assert await anext(told) == [replace(A, status=WorkerStatus.STARTING)], "it has come back"
    await told.aclose()


async def test_of_those_that_ended_meanwhile_only_who_knew_them_is_told() -> None:
    gone = replace(A, status=WorkerStatus.STOPPED)
    for known, expected in ((["wrk_a"], [gone]), ([], [])):
        told = WorkerWatch(Workers(gone), NEVER).watch(known)
        assert await anext(told) == expected, "the first answer comes in any case"
        await told.aclose()


async def test_of_one_that_was_removed_meanwhile_who_knew_it_is_told_its_end() -> None:
    told = WorkerWatch(Workers(B), NEVER).watch(["wrk_a"])
    live, removed = await anext(told)
    assert live == B
    assert removed.worker_id == "wrk_a"
    assert removed.has_ended
    await told.aclose()


async def test_without_a_word_it_looks_now_and_then() -> None:
    store = Workers(A)
    told = WorkerWatch(store, WorkerWatchLimits(pause_ms=0, interval_ms=1)).watch([])
    async with asyncio.timeout(WAIT_S):
        await anext(told)
        store.put(B)
        assert await anext(told) == [B]
    await told.aclose()


async def test_runs_that_begin_and_end_are_a_reason_to_look_and_what_they_say_is_not() -> None:
    store = Workers(A)
    watch = WorkerWatch(store, NEVER)
    told = watch.watch([])
    await anext(told)
    waiting = asyncio.ensure_future(anext(told))
    await asyncio.sleep(0)
    watch.on_records([LogRecord(1, "run_1", 3, EventType.TEXT_DELTA, b"")])
    for _ in range(20):
        await asyncio.sleep(0)
    assert store.looks == 1
    store.put(replace(A, run_ids=("run_1",)))
    watch.on_records([LogRecord(2, "run_1", 4, EventType.RUN_STARTED, b"")])
    async with asyncio.timeout(WAIT_S):
        assert await waiting == [replace(A, run_ids=("run_1",))]
    await told.aclose()


class Watching:
    """A real stream; `stands` is how each worker stands by what it has told."""

    def __init__(self, runtime: Replica, *known: str) -> None:
        request = pb.WatchWorkersRequest(worker_ids=known)
        self.call: Any = WorkerWatchServiceStub(runtime.channel).WatchWorkers(request, metadata=AS_PROJECTOR)
        self.stands: dict[str, worker_pb2.Worker] = {}

    async def until(self, worker_id: str, status: str, *run_ids: str) -> worker_pb2.Worker:
        wanted = worker_pb2.WorkerStatus.Value(f"WORKER_STATUS_{status}"), list(run_ids)
        async with asyncio.timeout(WAIT_S):
            while True:
                one = self.stands.get(worker_id)
                if one is not None and (one.status, list(one.run_ids)) == wanted:
                    return one
                self.stands.update((worker.worker_id, worker) for worker in (await self.call.read()).workers)


async def test_a_worker_is_told_of_with_what_it_holds_on_every_replica(runtime_database: Database) -> None:
    who, settings = somebody(), runtime_settings(runtime_database)
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        watches = [Watching(one), Watching(two)]
        worker = FakeWorker(one, who)
        await worker.attach()
        for watch in watches:
            told = await watch.until(worker.worker_id, "STARTING")
            assert (told.org_id, told.service_account_id, told.name) == (who.org_id, who.account_id, "fake")
            assert (list(told.adapters), told.max_concurrent_runs) == (["exec"], 4)
            assert told.HasField("attach_time")
            assert not told.HasField("heartbeat_time")
        run_id = (await one.create(who)).run_id
        await worker.next("assignment")
        await worker.heartbeat()
        for watch in watches:
            await watch.until(worker.worker_id, "RUNNING", run_id)
        await worker.append(run_id, 1, "end", finish())
        for watch in watches:
            await watch.until(worker.worker_id, "RUNNING")
        await worker.write(worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye()))
        for watch in watches:
            await watch.until(worker.worker_id, "STOPPED")
        await Watching(two, worker.worker_id).until(worker.worker_id, "STOPPED")


async def test_only_the_projector_is_told(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        call: Any = WorkerWatchServiceStub(runtime.channel).WatchWorkers(pb.WatchWorkersRequest(), metadata=AS_GATEWAY)
        assert (await refusal_of_call(call.read())).reason == "caller_not_allowed"
