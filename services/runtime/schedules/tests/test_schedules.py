"""Schedules over real gRPC: runs start when times come, each once, and people see what became of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database, patient_settings
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import event_pb2, run_pb2, worker_service_pb2
from openagents.runtime.v1 import schedule_service_pb2 as pb
from services.runtime.schedules.store.schedules import PostgresSchedules
from services.runtime.schedules.tests.scene import (
    ANCHOR,
    HOUR_MS,
    QUICK,
    Hand,
    anchor_of,
    create,
    key_of,
    request_of,
    scheduling,
    settled,
    show,
    standing,
)
from services.runtime.tests.rig import FakeWorker, Replica, Somebody, finish, refusal_of_call

ACTIVE = pb.SCHEDULE_STATUS_ACTIVE
DAYS_MS = 24 * HOUR_MS
CLOCK = pb.SCHEDULED_CAUSE_CLOCK


@pytest.fixture
def hand(runtime_database: Database) -> Hand:
    return Hand(runtime_database)


@pytest_asyncio.fixture
async def runtime(runtime_database: Database, who: Somebody) -> AsyncIterator[Replica]:
    async with scheduling(runtime_database, who) as runtime:
        yield runtime


def backfill(runtime: Replica, who: Somebody, start: datetime, end: datetime, handle: str = "nightly") -> Any:
    request = pb.BackfillScheduleRequest(schedule=handle)
    request.from_time.FromDatetime(start)
    request.to_time.FromDatetime(end)
    return runtime.schedules.BackfillSchedule(request, metadata=who.as_person())


def trigger(runtime: Replica, who: Somebody, key: str = "k", handle: str = "nightly") -> Any:
    request = pb.TriggerScheduleRequest(schedule=handle, idempotency_key=key)
    return runtime.schedules.TriggerSchedule(request, metadata=who.as_person())


def pause(runtime: Replica, who: Somebody, reason: str = "", handle: str = "nightly") -> Any:
    request = pb.PauseScheduleRequest(schedule=handle, reason=reason)
    return runtime.schedules.PauseSchedule(request, metadata=who.as_person())


def resume(runtime: Replica, who: Somebody, handle: str = "nightly") -> Any:
    return runtime.schedules.ResumeSchedule(pb.ResumeScheduleRequest(schedule=handle), metadata=who.as_person())


def delete(runtime: Replica, who: Somebody, handle: str = "nightly") -> Any:
    return runtime.schedules.DeleteSchedule(pb.DeleteScheduleRequest(schedule=handle), metadata=who.as_person())


# ------------------------------------------------------------------------------------------------------- the clock


async def test_a_run_starts_when_its_time_has_come(runtime: Replica, who: Somebody, hand: Hand) -> None:
    made = await create(runtime, who, catch_up_ms=DAYS_MS)
    assert (made.status, made.started, made.last_run_id) == (pb.SCHEDULE_STATUS_ACTIVE, 0, "")
    newest = await hand.set_back(made)
    shown = await settled(runtime, who, 1)
    (record,) = shown.recent
    assert (record.outcome, record.cause, record.times) == (
        pb.SCHEDULED_OUTCOME_STARTED,
        CLOCK,
        1,
    )
    assert record.nominal_time.ToDatetime(UTC) == newest
    assert await hand.runs(made) == {key_of(newest): record.run_id}
    assert (shown.schedule.started, shown.schedule.last_run_id) == (1, record.run_id)
    assert shown.schedule.next_time.ToDatetime(UTC) == newest + timedelta(hours=1)
    assert [time.ToDatetime(UTC) for time in shown.next_times] == [newest + timedelta(hours=n) for n in range(1, 6)]
    run = await runtime.run(who, record.run_id)
    assert (run.user_id, run.org_id, run.spec.exec.argv) == (who.user_id, who.org_id, ["true"])


async def test_of_missed_times_the_newest_is_caught_up_and_the_others_are_counted(
    runtime: Replica, who: Somebody, hand: Hand
) -> None:
    made = await create(runtime, who, catch_up_ms=DAYS_MS)
    newest = await hand.set_back(made, times=10)
    shown = await settled(runtime, who, 2)
    started, missed = shown.recent
    assert list(await hand.runs(made)) == [key_of(newest)]
    assert started.outcome == pb.SCHEDULED_OUTCOME_STARTED
    assert (missed.outcome, missed.reason, missed.times) == (pb.SCHEDULED_OUTCOME_SKIPPED, "missed", 9)
    assert missed.nominal_time.ToDatetime(UTC) == newest - timedelta(hours=1)
    assert "backfill" in missed.message
    assert (shown.schedule.started, shown.schedule.skipped) == (1, 9)


async def test_a_time_beyond_the_window_is_skipped_and_many_are_counted_in_pages(
    runtime_database: Database, who: Somebody, hand: Hand
) -> None:
    async with scheduling(runtime_database, who, replace(QUICK, missed_page=4)) as runtime:
        made = await create(runtime, who, catch_up_ms=10_000)
        async with hand.connection() as connection:
            await connection.execute(
                "UPDATE runtime.schedules SET anchor_time = statement_timestamp() - interval '30 minutes',"
                " next_time = statement_timestamp() - interval '9 hours 30 minutes'"
            )
        async with asyncio.timeout(PATIENCE_S):
            while (shown := await show(runtime, who)).schedule.skipped < 10:
                await asyncio.sleep(0.01)
        assert [record.times for record in shown.recent] == [2, 4, 4]
        assert await hand.runs(made) == {}
        assert shown.schedule.started == 0


@pytest.mark.parametrize(
    "anchor", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)], ids=["first", "last"]
)
async def test_an_anchor_at_either_end_of_the_calendar_is_one_like_any_other(
    runtime: Replica, who: Somebody, hand: Hand, anchor: datetime
) -> None:
    timing = pb.IntervalTiming(every_ms=DAYS_MS)
    timing.anchor_time.FromDatetime(anchor)
    made = await create(runtime, who, interval=timing, catch_up_ms=DAYS_MS)
    assert len((await show(runtime, who)).next_times) == 5
    before = await hand.let_come(made)
    shown = await settled(runtime, who, 1)
    assert shown.schedule.interval.anchor_time.ToDatetime(UTC) == anchor
    assert shown.schedule.next_time.ToDatetime(UTC) > before
    assert (shown.schedule.started, shown.schedule.status) == (1, pb.SCHEDULE_STATUS_ACTIVE)


async def test_a_schedule_whose_times_break_is_paused_and_the_others_go_on(
    runtime: Replica, who: Somebody, hand: Hand
) -> None:
    broken = await create(runtime, who, "broken", catch_up_ms=DAYS_MS)
    other = await create(runtime, who, "other", catch_up_ms=DAYS_MS)
    async with hand.connection() as connection:
        await connection.execute(
            "UPDATE runtime.schedules SET every_ms = 9223372036854775807, next_time = clock_timestamp()"
            " WHERE schedule_id = $1",
            broken.schedule_id,
        )
    await hand.let_come(other)
    await settled(runtime, who, 1, "other")
    paused = (await standing(runtime, who, "broken", pb.SCHEDULE_STATUS_PAUSED)).pause_reason
    assert "can't be told" in paused
    assert "defect" in paused


async def test_a_paused_schedule_starts_nothing_until_it_is_resumed(
    runtime: Replica, who: Somebody, hand: Hand
) -> None:
    made, other = (
        await create(runtime, who, catch_up_ms=DAYS_MS),
        await create(runtime, who, "other", catch_up_ms=DAYS_MS),
    )
    assert (await pause(runtime, who, "holidays")).schedule.pause_reason == "holidays"
    assert (await pause(runtime, who, "again")).schedule.pause_reason == "holidays"
    newest = await hand.set_back(made, times=3)
    await hand.set_back(other)
    await settled(runtime, who, 1, "other")  # so the clock has looked
    shown = await show(runtime, who)
    assert (shown.schedule.status, list(shown.next_times)) == (pb.SCHEDULE_STATUS_PAUSED, [])
    assert await hand.runs(made) == {}
    assert (await resume(runtime, who)).schedule.pause_reason == ""
    assert list(shown.recent) == []
    await settled(runtime, who, 2)
    assert list(await hand.runs(made)) == [key_of(newest)]


async def test_a_run_can_not_be_started_and_the_schedule_goes_on_until_it_pauses_itself(
    runtime_database: Database, who: Somebody, hand: Hand
) -> None:
    """A worker comes whose agent takes other inputs than it did when the schedule was created."""
    async with scheduling(runtime_database, who, replace(QUICK, max_refusals=2)) as runtime:
        spec = event_pb2.RunSpec(adapter="support", agent=event_pb2.AgentSpec(input_json='{"question": 1}'))
        request = request_of(catch_up_ms=DAYS_MS)
        request.spec.CopyFrom(spec)
        made = (await runtime.schedules.CreateSchedule(request, metadata=who.as_person())).schedule
        schema = '{"type": "object", "properties": {"question": {"type": "string"}}}'
        worker = FakeWorker(runtime, who, agents=[worker_service_pb2.Agent(name="support", input_schema_json=schema)])
        await worker.attach()
        await hand.set_back(made)
        shown = await settled(runtime, who, 1)
        assert (shown.schedule.status, shown.schedule.refused) == (pb.SCHEDULE_STATUS_ACTIVE, 1)
        assert (shown.recent[0].outcome, shown.recent[0].reason) == (pb.SCHEDULED_OUTCOME_REFUSED, "invalid_value")
        await hand.set_back(made)
        shown = await settled(runtime, who, 2)
        assert (shown.schedule.status, shown.schedule.refused) == (pb.SCHEDULE_STATUS_PAUSED, 2)
        assert shown.schedule.pause_reason.startswith("2 runs in a row were refused, the last one as invalid_value: ")
        assert await hand.runs(made) == {}


async def test_a_schedule_whose_time_zone_is_gone_pauses_itself_and_keeps_up_no_other_one(
    runtime: Replica, who: Somebody, hand: Hand
) -> None:
    cron = pb.CronTiming(expression="0 * * * *", time_zone="Europe/Zurich")
    made, other = await create(runtime, who, cron=cron), await create(runtime, who, "other", catch_up_ms=DAYS_MS)
    await pause(runtime, who)
    async with hand.connection() as connection:  # as if the machine had lost its rules, and the time had come
        await connection.execute(
            "UPDATE runtime.schedules SET time_zone = 'Europe/Nowhere', status = 'active', pause_reason = '',"
            " next_time = clock_timestamp() WHERE schedule_id = $1",
            made.schedule_id,
        )
    await hand.set_back(other)
    await settled(runtime, who, 1, "other")
    async with asyncio.timeout(PATIENCE_S):
        while (await _listed(runtime, who))["nightly"].status != pb.SCHEDULE_STATUS_PAUSED:
            await asyncio.sleep(0.01)
    shown = await show(runtime, who)
    assert "Europe/Nowhere" in shown.schedule.pause_reason
    assert await hand.runs(made) == {}


async def _listed(runtime: Replica, who: Somebody) -> dict[str, pb.Schedule]:
    listed = await runtime.schedules.ListSchedules(pb.ListSchedulesRequest(), metadata=who.as_person())
    return {one.name: one for one in listed.schedules}


# ------------------------------------------------------------------------------------------------------- overlap


async def _twice(runtime: Replica, who: Somebody, hand: Hand, overlap: pb.OverlapPolicy.ValueType) -> pb.Schedule:
    """A schedule whose first run waits for a worker when its next time has come."""
    made = await create(runtime, who, overlap=overlap, catch_up_ms=DAYS_MS)
    await hand.set_back(made, times=1)
    await settled(runtime, who, 1)
    await hand.set_back(made)
    return (await settled(runtime, who, 2)).schedule


async def test_by_default_a_time_is_skipped_while_the_last_run_goes_on(
    runtime: Replica, who: Somebody, hand: Hand
) -> None:
    after = await _twice(runtime, who, hand, pb.OVERLAP_POLICY_UNSPECIFIED)
    assert after.overlap == pb.OVERLAP_POLICY_SKIP
    assert (after.started, after.skipped, len(await hand.runs(after))) == (1, 1, 1)
    newest = (await show(runtime, who)).recent[0]
    assert (newest.outcome, newest.reason) == (pb.SCHEDULED_OUTCOME_SKIPPED, "overlap")


async def test_runs_may_overlap(runtime: Replica, who: Somebody, hand: Hand) -> None:
    after = await _twice(runtime, who, hand, pb.OVERLAP_POLICY_ALLOW)
    assert (after.started, len(await hand.runs(after))) == (2, 2)
    for run_id in (await hand.runs(after)).values():
        assert (await runtime.run(who, run_id)).status == run_pb2.RUN_STATUS_CREATED


async def test_the_last_run_may_be_canceled_for_the_next(runtime: Replica, who: Somebody, hand: Hand) -> None:
    after = await _twice(runtime, who, hand, pb.OVERLAP_POLICY_CANCEL_PREVIOUS)
    newest, first = (await show(runtime, who)).recent
    assert newest.run_id == after.last_run_id
    assert (await runtime.run(who, first.run_id)).status == run_pb2.RUN_STATUS_CANCELED
    assert (await runtime.run(who, newest.run_id)).status == run_pb2.RUN_STATUS_CREATED


async def test_a_run_that_can_not_be_started_replaces_nothing(runtime: Replica, who: Somebody, hand: Hand) -> None:
    request = request_of(catch_up_ms=DAYS_MS, overlap=pb.OVERLAP_POLICY_CANCEL_PREVIOUS)
    spec = event_pb2.RunSpec(adapter="support", agent=event_pb2.AgentSpec(input_json='{"question": 1}'))
    request.spec.CopyFrom(spec)
    made = (await runtime.schedules.CreateSchedule(request, metadata=who.as_person())).schedule
    await hand.set_back(made)
    first = (await settled(runtime, who, 1)).schedule.last_run_id
    schema = '{"type": "object", "properties": {"question": {"type": "string"}}}'
    agents = [worker_service_pb2.Agent(name="support", input_schema_json=schema)]
    worker = FakeWorker(runtime, who, agents=agents)
    await worker.attach()
    assert (await worker.next("assignment")).assignment.run.run_id == first
    await hand.set_back(made)
    shown = await settled(runtime, who, 2)
    assert (shown.schedule.refused, shown.schedule.last_run_id) == (1, first)
    assert (await runtime.run(who, first)).status == run_pb2.RUN_STATUS_RUNNING


@pytest.mark.parametrize("overlap", [pb.OVERLAP_POLICY_ALLOW, pb.OVERLAP_POLICY_CANCEL_PREVIOUS])
async def test_a_thread_that_is_busy_skips_times_cancels_nothing_and_pauses_no_schedule(
    runtime_database: Database, who: Somebody, hand: Hand, overlap: pb.OverlapPolicy.ValueType
) -> None:
    async with scheduling(runtime_database, who, replace(QUICK, max_refusals=2)) as runtime:
        request = request_of(catch_up_ms=DAYS_MS, overlap=overlap)
        request.spec.thread_id, request.spec.thread_policy = "thr", event_pb2.THREAD_POLICY_REJECT
        made = (await runtime.schedules.CreateSchedule(request, metadata=who.as_person())).schedule
        worker = FakeWorker(runtime, who)
        await worker.attach()
        await hand.set_back(made)
        first = (await worker.next("assignment")).assignment.run.run_id
        for times in (2, 3, 4):
            await hand.set_back(made)
            shown = await settled(runtime, who, times)
        assert (shown.schedule.status, shown.schedule.refused, shown.schedule.skipped) == (ACTIVE, 0, 3)
        assert shown.recent[0].reason == "overlap"
        assert (await runtime.run(who, first)).status == run_pb2.RUN_STATUS_RUNNING


async def test_a_run_that_has_ended_is_in_nobodys_way(runtime: Replica, who: Somebody, hand: Hand) -> None:
    made = await create(runtime, who, catch_up_ms=DAYS_MS)
    worker = FakeWorker(runtime, who)
    await worker.attach()
    await hand.set_back(made)
    run_id = (await worker.next("assignment")).assignment.run.run_id
    await worker.append(run_id, 1, "end", finish())
    await settled(runtime, who, 1)
    await hand.set_back(made)
    assert (await worker.next("assignment")).assignment.run.run_id != run_id


# ----------------------------------------------------------------------------------------------- trigger, backfill


async def test_a_trigger_starts_one_run_for_its_key(runtime: Replica, who: Somebody, hand: Hand) -> None:
    made = await create(runtime, who)
    await pause(runtime, who)
    first, again = await trigger(runtime, who), await trigger(runtime, who, handle=made.schedule_id)
    assert (first.already_started, again.already_started) == (False, True)
    assert first.run.run_id == again.run.run_id
    other = await trigger(runtime, who, "other")
    shown = await show(runtime, who)
    assert shown.schedule.last_run_id == other.run.run_id
    assert [record.run_id for record in shown.recent] == [other.run.run_id, first.run.run_id]
    assert {record.cause for record in shown.recent} == {pb.SCHEDULED_CAUSE_TRIGGER}
    assert (shown.schedule.started, shown.schedule.next_time) == (0, made.next_time), "times are the clock's"


async def test_a_colleague_triggers_a_run_that_belongs_to_the_schedules_owner(runtime: Replica, who: Somebody) -> None:
    await create(runtime, who)
    colleague = Somebody(who.key, org_id=who.org_id)
    run = (await trigger(runtime, colleague)).run
    assert run.user_id == who.user_id
    assert (await show(runtime, colleague)).recent[0].message == f"by {colleague.user_id}"


async def test_a_backfill_starts_each_past_time_once(runtime: Replica, who: Somebody, hand: Hand) -> None:
    made = await create(runtime, who)
    start = anchor_of(made) + timedelta(hours=5)
    done = (await backfill(runtime, who, start, start + timedelta(hours=3))).runs
    times = [start + timedelta(hours=hour) for hour in range(3)]
    assert [one.nominal_time.ToDatetime(UTC) for one in done] == times
    assert not any(one.already_started for one in done)
    assert await hand.runs(made) == {key_of(time): one.run_id for time, one in zip(times, done, strict=True)}
    more = (await backfill(runtime, who, start - timedelta(minutes=1), start + timedelta(hours=4))).runs
    assert [one.already_started for one in more] == [True, True, True, False]
    assert len(await hand.runs(made)) == 4
    shown = await show(runtime, who)
    assert {record.cause for record in shown.recent} == {pb.SCHEDULED_CAUSE_BACKFILL}
    assert (len(shown.recent), shown.schedule.last_run_id) == (4, "")


async def test_a_backfilled_time_is_not_started_again_by_the_clock(runtime: Replica, who: Somebody, hand: Hand) -> None:
    made = await create(runtime, who, catch_up_ms=DAYS_MS, overlap=pb.OVERLAP_POLICY_ALLOW)
    await pause(runtime, who)
    newest = await hand.set_back(made, times=3)
    middle = newest - timedelta(hours=1)
    await backfill(runtime, who, middle, middle + timedelta(minutes=1))
    await resume(runtime, who)
    shown = await settled(runtime, who, 3)
    assert set(await hand.runs(made)) == {key_of(middle), key_of(newest)}
    assert [record.cause for record in shown.recent] == [CLOCK, CLOCK, pb.SCHEDULED_CAUSE_BACKFILL]
    assert (shown.schedule.started, shown.schedule.skipped) == (2, 1), "it has its run: it was not missed"


@pytest.mark.parametrize(
    ("start", "end", "reason", "field"),
    [
        (datetime(1969, 12, 31, tzinfo=UTC), ANCHOR, "invalid_value", "from_time"),
        (ANCHOR, ANCHOR, "invalid_value", "to_time"),
        (ANCHOR, datetime(9999, 1, 1, tzinfo=UTC), "invalid_value", "to_time"),
        (ANCHOR, ANCHOR + timedelta(hours=101), "limit_reached", "to_time"),
    ],
)
async def test_a_range_that_can_not_be_backfilled(
    start: datetime, end: datetime, reason: str, field: str, runtime: Replica, who: Somebody, hand: Hand
) -> None:
    made = await create(runtime, who)
    refused = await refusal_of_call(backfill(runtime, who, start, end))
    assert (refused.reason, refused.field) == (reason, field)
    if reason == "limit_reached":
        assert refused.metadata == {
            "limit": "100",
            "first_left_out": (anchor_of(made) + timedelta(hours=100)).isoformat(),
        }
    assert await hand.runs(made) == {}


# ------------------------------------------------------------------------------------------------- create, delete


async def test_creation_is_idempotent_by_its_key(runtime: Replica, who: Somebody) -> None:
    request = request_of()
    answers = await asyncio.gather(
        *(runtime.schedules.CreateSchedule(request, metadata=who.as_person()) for _ in range(5))
    )
    assert len({one.schedule.schedule_id for one in answers}) == 1
    assert sorted(one.already_created for one in answers) == [False, True, True, True, True]
    changed = request_of(idempotency_key=request.idempotency_key, catch_up_ms=20_000)
    refused = await refusal_of_call(runtime.schedules.CreateSchedule(changed, metadata=who.as_person()))
    assert (refused.reason, refused.field) == ("idempotency_conflict", "idempotency_key")


async def test_names_are_free_again_after_a_deletion_and_the_key_is_known(
    runtime: Replica, who: Somebody, hand: Hand
) -> None:
    request = request_of(catch_up_ms=DAYS_MS)
    made = (await runtime.schedules.CreateSchedule(request, metadata=who.as_person())).schedule
    refused = await refusal_of_call(runtime.schedules.CreateSchedule(request_of(), metadata=who.as_person()))
    assert (refused.reason, refused.field) == ("already_exists", "name")
    assert not (await delete(runtime, who)).already_deleted
    assert (await delete(runtime, who, made.schedule_id)).already_deleted
    for call in (delete(runtime, who), pause(runtime, who, handle=made.schedule_id), trigger(runtime, who)):
        assert (await refusal_of_call(call)).reason == "not_found"
    again = await runtime.schedules.CreateSchedule(request, metadata=who.as_person())
    assert (again.already_created, again.schedule.status) == (True, pb.SCHEDULE_STATUS_DELETED)
    second = await create(runtime, who, catch_up_ms=DAYS_MS)
    await hand.set_back(made)
    await hand.set_back(second)
    await settled(runtime, who, 1)
    assert await hand.runs(made) == {}


async def test_deleted_ones_are_forgotten_after_a_while(runtime_database: Database, who: Somebody, hand: Hand) -> None:
    async with scheduling(runtime_database, who, replace(QUICK, keep_deleted_ms=0)) as runtime:
        made = await create(runtime, who)
        await trigger(runtime, who)
        await delete(runtime, who)
        async with hand.connection() as connection, asyncio.timeout(PATIENCE_S):
            while await connection.fetchval("SELECT count(*) FROM runtime.schedules"):
                await asyncio.sleep(0.01)
            assert await connection.fetchval("SELECT count(*) FROM runtime.schedule_times") == 0
        assert (await refusal_of_call(delete(runtime, who, made.schedule_id))).reason == "not_found"
        assert len(await hand.runs(made)) == 1, "runs stay"


async def test_a_look_forgets_some_deleted_ones_at_most(runtime_database: Database, who: Somebody, hand: Hand) -> None:
    """Years of them, each with the records of its times, would take longer than a statement may."""
    async with scheduling(runtime_database, who, QUICK) as runtime:
        made = [await create(runtime, who, name) for name in ("a", "b", "c")]
        for one in made:
            await delete(runtime, who, one.schedule_id)
    async with Postgres(patient_settings(runtime_database.runtime), "runtime") as postgres:
        store = PostgresSchedules(postgres, QUICK.kept_times)
        async with hand.connection() as connection:
            for left in (1, 0):
                await store.forget_deleted(0, 2)
                assert await connection.fetchval("SELECT count(*) FROM runtime.schedules") == left


async def test_an_org_has_so_many_schedules(runtime_database: Database, who: Somebody) -> None:
    async with scheduling(runtime_database, who, replace(QUICK, max_schedules=2)) as runtime:
        made = await asyncio.gather(
            *(create(runtime, Somebody(who.key, org_id=who.org_id), f"s{n}") for n in range(5)), return_exceptions=True
        )
        assert sum(isinstance(one, pb.Schedule) for one in made) == 2
        refused = await refusal_of_call(runtime.schedules.CreateSchedule(request_of("s9"), metadata=who.as_person()))
        assert (refused.reason, refused.metadata) == ("limit_reached", {"limit": "2"})
        await create(runtime, Somebody(who.key), "another-org")
        name = next(one.name for one in made if isinstance(one, pb.Schedule))
        await delete(runtime, who, name)
        await create(runtime, who, "s9")


def _with(**changes: Any) -> pb.CreateScheduleRequest:
    request = request_of(**{name: value for name, value in changes.items() if name != "spec"})
    if "spec" in changes:
        request.spec.CopyFrom(changes["spec"])
    return request


def _exec(**changes: Any) -> event_pb2.RunSpec:
    return event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["true"]), **changes)


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (_with(cron=pb.CronTiming(expression="0 9 * *")), "invalid_value", "cron.expression"),
        (_with(cron=pb.CronTiming(expression="0 9 * * *", time_zone="Mars/Base")), "invalid_value", "cron.time_zone"),
        (_with(interval=pb.IntervalTiming(every_ms=59_999)), "invalid_value", "interval.every_ms"),
        (_with(catch_up_ms=1), "invalid_value", "catch_up_ms"),
        (_with(name="x" * 65), "invalid_value", "name"),
        (_with(name="Nightly"), "invalid_value", "name"),
        (_with(spec=_exec(retention_class="no-such")), "invalid_value", "spec.retention_class"),
        (_with(spec=event_pb2.RunSpec(adapter="exec")), "missing_payload", "spec.input"),
        (
            _with(spec=event_pb2.RunSpec(adapter="a", agent=event_pb2.AgentSpec(input_json="{"))),
            "invalid_value",
            "spec.agent.input_json",
        ),
    ],
)
async def test_what_can_not_be_scheduled(
    request_: pb.CreateScheduleRequest, reason: str, field: str, runtime: Replica, who: Somebody
) -> None:
    refused = await refusal_of_call(runtime.schedules.CreateSchedule(request_, metadata=who.as_person()))
    assert (refused.reason, refused.field) == (reason, field)


async def test_an_input_is_held_against_the_agents_schema_at_once(runtime: Replica, who: Somebody) -> None:
    schema = '{"type": "object", "properties": {"question": {"type": "string"}}}'
    worker = FakeWorker(runtime, who, agents=[worker_service_pb2.Agent(name="support", input_schema_json=schema)])
    await worker.attach()
    spec = event_pb2.RunSpec(adapter="support", agent=event_pb2.AgentSpec(input_json='{"question": 1}'))
    refused = await refusal_of_call(runtime.schedules.CreateSchedule(_with(spec=spec), metadata=who.as_person()))
    assert (refused.reason, refused.field) == ("invalid_value", "spec.agent.input_json")
    assert refused.metadata == {"path": "$.question"}


# ------------------------------------------------------------------------------------------------------ who sees it


async def test_others_learn_nothing(runtime: Replica, who: Somebody) -> None:
    made, stranger = await create(runtime, who), Somebody(who.key)
    now = datetime.now(UTC)
    for handle in ("nightly", made.schedule_id):
        for call in (
            runtime.schedules.GetSchedule(pb.GetScheduleRequest(schedule=handle), metadata=stranger.as_person()),
            pause(runtime, stranger, handle=handle),
            resume(runtime, stranger, handle),
            trigger(runtime, stranger, handle=handle),
            backfill(runtime, stranger, now - timedelta(hours=2), now - timedelta(hours=1), handle),
            delete(runtime, stranger, handle),
        ):
            refused = await refusal_of_call(call)
            assert (refused.reason, refused.field) == ("not_found", "schedule")
    await create(runtime, stranger)
    listed = await runtime.schedules.ListSchedules(pb.ListSchedulesRequest(), metadata=stranger.as_person())
    assert [one.org_id for one in listed.schedules] == [stranger.org_id]


async def test_lists_have_pages(runtime: Replica, who: Somebody) -> None:
    made = [(await create(runtime, who, f"s{number}")).schedule_id for number in range(5)]
    seen, token = [], ""
    while True:
        request = pb.ListSchedulesRequest(page_size=2, page_token=token)
        page = await runtime.schedules.ListSchedules(request, metadata=who.as_person())
        seen += [one.schedule_id for one in page.schedules]
        assert not any(one.HasField("spec") for one in page.schedules)
        assert {one.adapter for one in page.schedules} == {"exec"}
        if not (token := page.next_page_token):
            break
    assert seen == sorted(made, reverse=True)
    first = await runtime.schedules.ListSchedules(pb.ListSchedulesRequest(page_size=2), metadata=who.as_person())
    for wrong, by in ((first.next_page_token, Somebody(who.key)), ("nonsense", who)):
        call = runtime.schedules.ListSchedules(pb.ListSchedulesRequest(page_token=wrong), metadata=by.as_person())
        assert (await refusal_of_call(call)).reason == "invalid_page_token"


async def test_only_the_newest_records_are_kept(runtime_database: Database, who: Somebody) -> None:
    async with scheduling(runtime_database, who, replace(QUICK, kept_times=3, shown_times=2)) as runtime:
        await create(runtime, who)
        runs = [(await trigger(runtime, who, f"k{number}")).run.run_id for number in range(5)]
        shown = await show(runtime, who)
        assert [record.run_id for record in shown.recent] == runs[:1:-1]
        assert len(shown.next_times) == 2
        await trigger(runtime, who, "k0")
        assert (await show(runtime, who)).schedule.last_run_id == runs[-1], "a repetition starts nothing"
