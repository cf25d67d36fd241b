"""What becomes of times, on virtual time: each is settled once, in order, whatever was away for however long."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from services.runtime.schedules.domain.schedule import (
    MISSED,
    OVERLAP,
    Cause,
    Draft,
    Outcome,
    Overlap,
    Plan,
    Schedule,
    ScheduledTime,
    Settled,
    Standing,
    Status,
    Step,
    check_draft,
    come,
    moved,
    paused,
    plan,
    resumed,
    run_key,
    shown_times,
    skipped_for_overlap,
    step_of,
    unusable,
)
from services.runtime.schedules.domain.timing import CronTiming, IntervalTiming, Timing, next_after, times_after
from services.runtime.schedules.limits import ScheduleLimits

START = datetime(2026, 3, 28, 20, tzinfo=UTC)
EVERY_MINUTE = IntervalTiming(60_000, START)
TIMINGS = (
    EVERY_MINUTE,
    IntervalTiming(47_000, START - timedelta(seconds=3)),
    CronTiming("*/10 * * * *", "Europe/Zurich"),
    CronTiming("30 2 * * *", "Europe/Zurich"),
)
MAX_REFUSALS = 3
IDLE = Standing(last_ended=True)
WHY = {"reason": "invalid_value", "message": "no"}


def schedule(timing: Timing = EVERY_MINUTE, **changes: object) -> Schedule:
    first = next_after(timing, START)
    assert first is not None
    made = Schedule(
        schedule_id="sch_01JD8V0000000000000000000A",
        org_id="org_1",
        user_id="usr_1",
        name="nightly",
        timing=timing,
        overlap=Overlap.SKIP,
        catch_up_ms=600_000,
        spec=b"",
        create_time=START,
        next_time=first,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def planned_at(one: Schedule, now: datetime, most: int = 10, standing: Standing = IDLE) -> Plan:
    return plan(one, come(one, now, most), now, standing)


class World:
    """A schedule, its looks, and everything that was recorded."""

    def __init__(self, one: Schedule, missed_page: int) -> None:
        self.schedule = one
        self.records: list[ScheduledTime] = []
        self.started: list[tuple[datetime, datetime]] = []
        """Time and when its run was started."""
        self._missed_page = missed_page
        self._runs = count()

    def look(self, now: datetime) -> None:
        """As the clock does, until nothing is due."""
        while self.schedule.status is Status.ACTIVE and self.schedule.next_time <= now:
            planned = planned_at(self.schedule, now, self._missed_page)
            settled = None
            if planned.due is not None:
                settled = Settled(Outcome.STARTED, run_id=f"run_{next(self._runs):05}")
                self.started.append((planned.due, now))
            self.schedule, records = moved(self.schedule, planned, settled, MAX_REFUSALS)
            self.records += records


@given(
    timing=st.sampled_from(TIMINGS),
    gaps=st.lists(st.sampled_from([1, 5, 30, 61, 300, 900, 4_000, 90_000]), max_size=12),
    catch_up_s=st.sampled_from([10, 60, 3_600]),
    missed_page=st.sampled_from([2, 3, 50]),
    pauses=st.sets(st.integers(0, 12)),
)
@settings(deadline=None, max_examples=200)
def test_every_time_is_settled_once_and_at_most_the_newest_is_caught_up(
    timing: Timing, gaps: list[int], catch_up_s: int, missed_page: int, pauses: set[int]
) -> None:
    world, now = World(schedule(timing, catch_up_ms=catch_up_s * 1000), missed_page), START
    for index, gap in enumerate(gaps):
        before, now = len(world.started), now + timedelta(seconds=gap)
        change = paused(world.schedule, "why") if index in pauses else resumed(world.schedule)
        world.schedule = change
        world.look(now)
        assert len(world.started) <= before + 1, "one run for however many missed times"
    world.schedule = resumed(world.schedule)
    world.look(now)
    come = list(takewhile(lambda time: time <= now, times_after(timing, START)))
    assert world.schedule.next_time == next_after(timing, come[-1] if come else START)
    assert sum(one.times for one in world.records) == len(come)
    assert world.schedule.started + world.schedule.skipped == len(come)
    nominal = [one.nominal for one in world.records]
    assert nominal == sorted(set(nominal))
    assert set(nominal) <= set(come)
    for time, when in world.started:
        assert timedelta(0) <= when - time <= timedelta(seconds=catch_up_s)
        newer = next_after(timing, time)
        assert newer is not None
        assert newer > when, "no newer one had come"


def test_a_time_at_the_edge_of_the_window_is_started_and_one_beyond_is_not() -> None:
    one = schedule(catch_up_ms=30_000)
    edge = planned_at(one, one.next_time + timedelta(seconds=30))
    beyond = planned_at(one, one.next_time + timedelta(seconds=30, microseconds=1))
    assert (edge.due, edge.missed, edge.newest_missed) == (one.next_time, 0, None)
    assert (beyond.due, beyond.missed, beyond.newest_missed) == (None, 1, one.next_time)
    assert edge.next_time == beyond.next_time == one.next_time + timedelta(minutes=1)


def test_the_last_time_of_all_pauses_the_schedule() -> None:
    late = datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC)
    one = schedule(next_time=late)
    after, records = moved(one, planned_at(one, late), Settled(Outcome.STARTED, run_id="run_1"), MAX_REFUSALS)
    assert (after.status, after.pause_reason, len(records)) == (Status.PAUSED, "it has no other time", 1)


@pytest.mark.parametrize(
    ("overlap", "standing", "step"),
    [
        (Overlap.SKIP, Standing(last_ended=True), Step.START),
        (Overlap.SKIP, Standing(last_ended=False), Step.SKIP),
        (Overlap.ALLOW, Standing(last_ended=False), Step.START),
        (Overlap.CANCEL_PREVIOUS, Standing(last_ended=False), Step.REPLACE),
        (Overlap.CANCEL_PREVIOUS, Standing(last_ended=True), Step.START),
    ],
)
def test_what_is_done_about_a_due_time(overlap: Overlap, standing: Standing, step: Step) -> None:
    assert step_of(overlap, standing) is step


@pytest.mark.parametrize("late_s", [0, 200, 100_000])
@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_a_time_whose_run_exists_is_done_first_however_late_it_is(index: int, late_s: int) -> None:
    """Its starter died, or somebody asked for it: it is not counted as missed."""
    one = schedule()
    times = [one.next_time + timedelta(minutes=minute) for minute in range(5)]
    known = Standing(last_ended=False, key=run_key(one.schedule_id, times[index]), run_id="run_1")
    planned = planned_at(one, times[3] + timedelta(seconds=late_s), standing=known)
    assert (planned.missed, planned.due, planned.run_id) == (index, times[index], "run_1")
    assert planned.newest_missed == (times[index - 1] if index else None)
    assert planned.next_time == times[index + 1]


def test_refusals_in_a_row_pause_it_and_a_start_begins_the_row_anew() -> None:
    one = schedule()
    for settled in (
        Settled(Outcome.REFUSED, **WHY),
        Settled(Outcome.REFUSED, **WHY),
        Settled(Outcome.STARTED, run_id="run_1"),
        Settled(Outcome.REFUSED, **WHY),
        skipped_for_overlap(),
        Settled(Outcome.REFUSED, **WHY),
    ):
        one, _ = moved(one, planned_at(one, one.next_time), settled, MAX_REFUSALS)
        assert one.status is Status.ACTIVE
    one, records = moved(one, planned_at(one, one.next_time), Settled(Outcome.REFUSED, **WHY), MAX_REFUSALS)
    assert (one.status, one.started, one.refused, one.skipped) == (Status.PAUSED, 1, 5, 1)
    assert one.pause_reason == "3 runs in a row were refused, the last one as invalid_value: no"
    assert [(record.outcome, record.reason) for record in records] == [(Outcome.REFUSED, "invalid_value")]
    assert resumed(one).refused_in_row == 0


def test_what_was_skipped_says_why() -> None:
    one = schedule()
    now = one.next_time + timedelta(minutes=3)
    after, records = moved(one, planned_at(one, now), skipped_for_overlap(), MAX_REFUSALS)
    assert [(record.outcome, record.times, record.reason) for record in records] == [
        (Outcome.SKIPPED, 3, MISSED),
        (Outcome.SKIPPED, 1, OVERLAP),
    ]
    assert all(record.cause is Cause.CLOCK and record.message for record in records)
    assert after.skipped == 4


def test_a_pause_keeps_its_first_reason_and_only_a_paused_one_is_resumed() -> None:
    one = paused(schedule(), "first")
    assert paused(one, "second") == one
    assert resumed(one) == schedule()
    closed = schedule(status=Status.PAUSED, pause_reason="its org was deleted", closed_with_org=True)
    assert paused(closed, "holidays") == schedule(status=Status.PAUSED, pause_reason="holidays"), "not with its org"
    deleted = schedule(status=Status.DELETED)
    assert (paused(deleted, "x"), resumed(deleted)) == (deleted, deleted)


def test_next_times_are_not_past_and_a_paused_one_has_none() -> None:
    one = schedule()
    assert shown_times(one, START, 3) == [START + timedelta(minutes=minute) for minute in (1, 2, 3)]
    late = START + timedelta(minutes=5, seconds=1)
    assert shown_times(one, late, 2) == [START + timedelta(minutes=minute) for minute in (6, 7)]
    assert shown_times(paused(one, "x"), START, 3) == []


def test_one_whose_times_can_not_be_told_any_more_is_paused() -> None:
    one = schedule(CronTiming("0 0 * * *", "Europe/Zurich"), next_time=START)
    renamed = replace(one, timing=CronTiming("0 0 * * *", "Europe/Nowhere"))
    with pytest.raises(Refusal) as caught:
        planned_at(renamed, START)
    after = unusable(renamed, caught.value)
    assert after.status is Status.PAUSED
    assert "Europe/Nowhere" in after.pause_reason


def test_keys_tell_schedules_and_times_apart() -> None:
    day = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    keys = {run_key(one, day + timedelta(microseconds=us)) for one in ("sch_1", "sch_2") for us in (0, 1)}
    assert len(keys) == 4
    assert run_key("sch_1", day) == "sch_1:2026-10-25T00:30:00.000000Z"


def test_the_last_run_is_the_newest_one() -> None:
    one = schedule().with_run("run_2")
    assert one.with_run("run_1").last_run_id == "run_2"
    assert one.with_run("run_3").last_run_id == "run_3"
    assert one.with_run("").last_run_id == "run_2"
    assert one.owner.kind is PrincipalKind.USER
    assert replace(one, user_id="sva_1").owner.kind is PrincipalKind.SERVICE_ACCOUNT


LIMITS = ScheduleLimits(max_name_chars=7, max_spec_bytes=3, min_catch_up_ms=10)


@pytest.mark.parametrize(
    ("draft", "reason", "field"),
    [
        (Draft("nightly8", EVERY_MINUTE, Overlap.SKIP, 0, b""), "invalid_value", "name"),
        (Draft("nightly", EVERY_MINUTE, Overlap.SKIP, 0, b"1234"), "payload_too_large", "spec"),
        (Draft("nightly", EVERY_MINUTE, Overlap.SKIP, 9, b""), "invalid_value", "catch_up_ms"),
    ],
)
def test_drafts_have_limits(draft: Draft, reason: str, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_draft(draft, LIMITS)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    check_draft(Draft("nightly", EVERY_MINUTE, Overlap.SKIP, 10, b"123"), LIMITS)


def test_a_fingerprint_tells_every_part_apart() -> None:
    one = Draft("nightly", EVERY_MINUTE, Overlap.SKIP, 0, b"spec")
    others = [
        replace(one, name="hourly"),
        replace(one, timing=IntervalTiming(60_000)),
        replace(one, timing=IntervalTiming(60_001, START)),
        replace(one, timing=CronTiming("* * * * *", "UTC")),
        replace(one, timing=CronTiming("* * * * *", "Europe/Zurich")),
        replace(one, overlap=Overlap.ALLOW),
        replace(one, catch_up_ms=10_000),
        replace(one, spec=b"other"),
    ]
    assert len({each.fingerprint for each in [one, *others]}) == len(others) + 1
    assert replace(one).fingerprint == one.fingerprint
