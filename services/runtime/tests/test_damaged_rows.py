"""A run whose row is damaged holds up no other: whatever looks after runs leaves it out, and goes on with the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import asyncpg
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.telemetry.metrics import QUARANTINED
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import event_pb2, run_pb2, worker_service_pb2
from services.runtime.config import SequencerSettings
from services.runtime.schedules.domain.schedule import Come, Plan, Schedule, Standing, plan
from services.runtime.schedules.tests.scene import QUICK, Hand, create, settled
from services.runtime.tests.rig import (
    QUICK_RUNS,
    QUICK_WORKERS,
    FakeWorker,
    Replica,
    Somebody,
    attached,
    cancel,
    finish,
    keep_beating,
    refusing,
    replica,
    runtime_settings,
    until_status,
)

UNREADABLE_SPEC, UNREADABLE_STATE = "spec = '\\xff'", "totals = '[]'"
CANCELED, FAILED, SUCCEEDED = run_pb2.RUN_STATUS_CANCELED, run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_SUCCEEDED
INTERRUPT = event_pb2.THREAD_POLICY_INTERRUPT


@pytest_asyncio.fixture
async def runtime(runtime_database: Database, who: Somebody) -> AsyncIterator[Replica]:
    """A replica that remembers no run, and reads each row whenever it needs it."""
    uncached = SequencerSettings(cached_runs=0)
    settings = runtime_settings(runtime_database, sequencer=uncached, runs=QUICK_RUNS, schedules=QUICK)
    async with replica(settings, who.key) as runtime:
        yield runtime


async def damage(database: Database, run_ids: Sequence[str], how: str) -> None:
    """Damage the rows of runs, in one statement."""
    connection = await asyncpg.connect(database.owner)
    try:
        statement = f"UPDATE runtime.runs SET {how} WHERE run_id = ANY($1::text[])"  # noqa: S608 - of this module
        await connection.execute(statement, list(run_ids))
    finally:
        await connection.close()


async def held(runtime: Replica, who: Somebody, *keys: str) -> tuple[FakeWorker, list[str]]:
    """A worker that holds runs with these keys, and has room for as many again."""
    worker = await attached(runtime, who, slots=2 * len(keys))
    runs = []
    for key in keys:
        runs.append((await runtime.create(who, key)).run_id)
        assert (await worker.next("assignment")).assignment.run.run_id == runs[-1]
    return worker, runs


async def child(runtime: Replica, who: Somebody, worker: FakeWorker, run_id: str) -> str:
    """A child of the run, which the worker holds; it ends with its parent."""
    spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["true"]))
    request = worker_service_pb2.StartChildRequest(
        run_id=run_id, lease_epoch=1, child_id="c1", spec=spec, cancel_with_parent=True
    )
    child_id: str = (await runtime.workers.StartChild(request, metadata=who.as_worker())).child_run_id
    assert (await worker.next("assignment")).assignment.run.run_id == child_id
    return child_id


@pytest.mark.parametrize("how", [UNREADABLE_SPEC, UNREADABLE_STATE], ids=["spec", "state"])
async def test_the_next_run_is_given_to_a_worker(
    runtime: Replica, who: Somebody, runtime_database: Database, how: str
) -> None:
    broken, fine = [(await runtime.create(who, key)).run_id for key in ("a", "b")]
    await damage(runtime_database, [broken], how)
    before = value_of(QUARANTINED.labels("dispatcher"))
    with capture_logs() as lines:
        worker = await attached(runtime, who, slots=1)
        assert (await worker.next("assignment")).assignment.run.run_id == fine
        await worker.append(fine, 1, "end", finish())
        again = (await runtime.create(who, "c")).run_id
        assert (await worker.next("assignment")).assignment.run.run_id == again
    about = [line for line in lines if line["event"] == "quarantined"]
    assert [(line["task"], line["run_id"]) for line in about] == [("dispatcher", broken)], "once, in all that time"
    assert value_of(QUARANTINED.labels("dispatcher")) == before + 1


async def test_other_timeouts_and_cancels_take_effect(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    timed = event_pb2.QueuePolicy(start_timeout_ms=1_000)
    late = [(await runtime.create(who, key, queue=timed)).run_id for key in ("a", "b")]
    await damage(runtime_database, late[:1], UNREADABLE_STATE)
    await until_status(runtime, who, late[1], FAILED)
    _, runs = await held(runtime, who, "c", "d")
    for run_id in runs:
        await cancel(runtime, who, run_id)
    await damage(runtime_database, runs[:1], UNREADABLE_STATE)
    await until_status(runtime, who, runs[1], CANCELED)


async def test_a_silent_worker_is_lost_and_its_other_runs_are_taken_from_it(
    runtime_database: Database, who: Somebody
) -> None:
    settings = runtime_settings(runtime_database, sequencer=SequencerSettings(cached_runs=0), workers=QUICK_WORKERS)
    async with replica(settings, who.key) as runtime, Hand(runtime_database).connection() as connection:
        worker = await attached(runtime, who)
        beating = asyncio.create_task(keep_beating(worker))
        runs = [(await runtime.create(who, key)).run_id for key in ("a", "b")]
        assert {(await worker.next("assignment")).assignment.run.run_id for _ in runs} == set(runs)
        await damage(runtime_database, runs[:1], UNREADABLE_STATE)
        beating.cancel()
        async with asyncio.timeout(PATIENCE_S):
            while not await connection.fetchval("SELECT fenced FROM runtime.runs WHERE run_id = $1", runs[1]):
                await asyncio.sleep(0.05)


async def test_other_parents_are_told_and_other_orphans_end(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    worker, parents = await held(runtime, who, "a", "b", "c", "d")
    children = [await child(runtime, who, worker, parent) for parent in parents]
    # The parents of the first two don't hear of the first one's end, and must hear of the second one's.
    await damage(runtime_database, parents[:1], UNREADABLE_STATE)
    for child_id in children[:2]:
        await worker.append(child_id, 1, "end", finish())
    news = (await worker.next("news")).news
    assert news.run_id == parents[1]
    # Of the other two, the first can't be ended.
    await damage(runtime_database, children[2:3], UNREADABLE_STATE)
    for parent in parents[2:]:
        await cancel(runtime, who, parent)
    told = {(await worker.next("cancel")).cancel.run_id for _ in range(3)}
    assert told == {parents[2], parents[3], children[3]}


async def test_a_child_whose_end_can_not_be_read_holds_up_no_other(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    worker, parents = await held(runtime, who, "a", "b")
    children = [await child(runtime, who, worker, parent) for parent in parents]
    await damage(
        runtime_database, children[:1], "finish = '\\xff', status = 'succeeded', finish_time = clock_timestamp()"
    )
    await worker.append(children[1], 1, "end", finish())
    assert (await worker.next("news")).news.run_id == parents[1]


async def test_others_are_interrupted_and_end_with_their_org(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    _, runs = await held(runtime, who, "a", "b", "c", "d")
    await damage(runtime_database, runs[:1], f"{UNREADABLE_STATE}, thread_id = 'one'")
    await damage(runtime_database, runs[1:2], "thread_id = 'two'")
    for thread in ("one", "two"):
        await runtime.create(who, f"new-{thread}", thread=(thread, INTERRUPT))
    await until_status(runtime, who, runs[1], CANCELED)
    await damage(runtime_database, runs[2:3], UNREADABLE_STATE)
    lost = Revocation("", "", who.org_id, 0.0, PlaceChange.LOST, position=1, revoked_s=1_700_000_000.0)
    runtime.revocations.take([lost], 1)
    await until_status(runtime, who, runs[3], CANCELED)


async def test_a_worker_comes_back_and_keeps_its_other_runs(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    worker, runs = await held(runtime, who, "a", "b")
    await damage(runtime_database, runs[:1], UNREADABLE_SPEC)
    back = FakeWorker(runtime, who, worker.worker_id)
    await back.attach(*(worker_service_pb2.HeldLease(run_id=run_id, lease_epoch=1) for run_id in runs))
    await back.append(runs[1], 1, "end", finish())
    await until_status(runtime, who, runs[1], SUCCEEDED)


async def test_appends_of_others_are_stored_beside_one_that_can_not_be_decided(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    """They come together, and share transactions."""
    worker, runs = await held(runtime, who, *"abcdefgh")
    await damage(runtime_database, runs[:1], UNREADABLE_STATE)
    for number, run_id in enumerate(runs):
        append = worker_service_pb2.AppendEventsRequest(
            request_id=number + 1, run_id=run_id, lease_epoch=1, idempotency_key="end", events=[finish()]
        )
        await worker.write(worker_service_pb2.AttachRequest(append=append))
    answers = [await refusing(worker.call.read()) for _ in runs]
    assert sorted(one.WhichOneof("message") for one in answers) == ["append_refused", *["appended"] * 7]
    (refused,) = (one.append_refused for one in answers if one.HasField("append_refused"))
    assert (refused.run_id, refused.reason) == (runs[0], "internal")


async def test_other_schedules_start_their_runs(
    runtime: Replica, who: Somebody, runtime_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand(runtime_database)
    broken, fine = [await create(runtime, who, name) for name in ("broken", "fine")]

    def defective(schedule: Schedule, come: Come, now: datetime, standing: Standing) -> Plan:
        if schedule.name == "broken":
            raise KeyError(schedule.name)
        return plan(schedule, come, now, standing)

    monkeypatch.setattr("services.runtime.schedules.app.clock.plan", defective)
    with capture_logs() as lines:
        for schedule in (broken, fine):
            await hand.set_back(schedule)
        await settled(runtime, who, 1, "fine")
    assert [line["schedule_id"] for line in lines if line["event"] == "quarantined"] == [broken.schedule_id]
