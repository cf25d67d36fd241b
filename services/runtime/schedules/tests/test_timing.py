"""When times are: cron on the days when clocks change, intervals by their phase, and timings that there can't be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from services.runtime.schedules.domain.timing import (
    CronTiming,
    IntervalTiming,
    Timing,
    anchored,
    check_timing,
    next_after,
    times_after,
    times_within,
)
from services.runtime.schedules.limits import ScheduleLimits

ZURICH, LORD_HOWE, CAIRO = "Europe/Zurich", "Australia/Lord_Howe", "Africa/Cairo"
ZONES = (ZURICH, LORD_HOWE, CAIRO, "America/New_York", "Africa/Casablanca", "Asia/Kathmandu", "UTC")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANCHOR = datetime(2026, 3, 1, 0, 7, tzinfo=UTC)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def local(timing: CronTiming, after: datetime, count: int) -> list[str]:
    zone = ZoneInfo(timing.time_zone)
    return [f"{time.astimezone(zone):%d %H:%M%z}" for time in islice(times_after(timing, after), count)]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Zurich, 29 March 2026: 02:00 is 03:00.
        ("30 2 * * *", ZURICH, at(2026, 3, 28, 0), ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]),
        ("0 3 * * *", ZURICH, at(2026, 3, 28, 12), ["29 03:00+0200", "30 03:00+0200"]),
        ("0,30 2,3 * * *", ZURICH, at(2026, 3, 29, 0), ["29 03:00+0200", "29 03:30+0200", "30 02:00+0200"]),
        ("*/30 * * * *", ZURICH, at(2026, 3, 29, 0, 10), ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]),
        ("*/30 2 * * *", ZURICH, at(2026, 3, 28, 12), ["30 02:00+0200", "30 02:30+0200"]),
        # 25 October 2026: 03:00 is 02:00.
        ("30 2 * * *", ZURICH, at(2026, 10, 24, 12), ["25 02:30+0200", "26 02:30+0100"]),
        ("30 2 * * *", ZURICH, at(2026, 10, 25, 1, 10), ["26 02:30+0100"]),
        ("0 3 * * *", ZURICH, at(2026, 10, 24, 12), ["25 03:00+0100", "26 03:00+0100"]),
        ("0 * * * *", ZURICH, at(2026, 10, 24, 23, 30), ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
        ("*/30 2 * * *", ZURICH, at(2026, 10, 24, 12), ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100"]),
        # Half an hour: 4 October 2026, 02:00 is 02:30.
        ("15 2 * * *", LORD_HOWE, at(2026, 10, 3, 0), ["04 02:30+1100", "05 02:15+1100"]),
        ("0 */5 * * *", LORD_HOWE, at(2026, 10, 3, 12), ["04 00:00+1030", "04 05:00+1100", "04 10:00+1100"]),
        ("*/15 3 * * *", LORD_HOWE, at(2026, 4, 4, 12), ["05 03:00+1030", "05 03:15+1030", "05 03:30+1030"]),
        # A day that begins in the gap: 24 April 2026 in Cairo, 00:00 is 01:00.
        ("*/30 1 */2 * *", CAIRO, at(2026, 4, 22, 12), ["23 01:00+0200", "23 01:30+0200", "25 01:00+0300"]),
        ("*/30 1 * * 5", CAIRO, at(2026, 4, 23, 12), ["24 01:00+0300", "24 01:30+0300", "01 01:00+0300"]),
        ("*/30 0 * * 5", CAIRO, at(2026, 4, 23, 12), ["01 00:00+0300", "01 00:30+0300"]),
        ("0 9 * * 1-5", ZURICH, at(2026, 11, 27, 12), ["30 09:00+0100", "01 09:00+0100"]),
        ("0 0 29 2 *", "UTC", at(2026, 1, 1), ["29 00:00+0000", "29 00:00+0000"]),
    ],
)
def test_cron_on_the_days_when_clocks_change(expression: str, zone: str, after: datetime, expected: list[str]) -> None:
    assert local(CronTiming(expression, zone), after, len(expected)) == expected


_FIELDS = st.tuples(
    st.sampled_from(["*", "0", "30", "*/20", "15,45", "0-10/5", "59"]),
    st.sampled_from(["*", "0", "1", "2", "1-3", "*/2", "2,3", "23"]),
    st.sampled_from(["*", "1", "L", "25-31", "*/9"]),
    st.sampled_from(["*", "3", "10", "3,4,10,11"]),
    st.sampled_from(["*", "0", "1-5", "SUN", "0#1"]),
)
_MOMENTS = st.one_of(
    st.integers(0, 5 * 366 * 86_400).map(lambda second: at(2025, 1, 1) + timedelta(seconds=second)),
    # Around what changes in the zones above.
    st.builds(
        lambda day, minutes: day + timedelta(minutes=minutes),
        st.sampled_from([at(2026, 3, 28, 23), at(2026, 10, 24, 23), at(2026, 10, 3, 13), at(2026, 4, 23, 20)]),
        st.integers(0, 300),
    ),
)


@given(fields=_FIELDS, zone=st.sampled_from(ZONES), after=_MOMENTS)
@settings(deadline=None, max_examples=300)
def test_times_grow_and_each_follows_from_the_one_before_it_alone(
    fields: tuple[str, ...], zone: str, after: datetime
) -> None:
    timing, start = CronTiming(" ".join(fields), zone), after
    found = list(islice(times_after(timing, start), 12))
    assert all(earlier < later for earlier, later in pairwise([start, *found]))
    assert [next_after(timing, time) for time in [start, *found[:-1]]] == found
    assert found == times_within(timing, found[0], found[-1] + timedelta(seconds=1), 100)
    assert found[:-1] == times_within(timing, found[0], found[-1], 100)


_MINUTES = st.sampled_from([("*", range(60)), ("*/20", range(0, 60, 20)), ("30", [30]), ("50-59/4", [50, 54, 58])])
_HOURS = st.sampled_from([("*", range(24)), ("*/2", range(0, 24, 2)), ("*/5", range(0, 24, 5)), ("*/23", [0, 23])])


_CHANGES = st.sampled_from(
    [
        (ZURICH, at(2026, 3, 28, 22)),
        (ZURICH, at(2026, 10, 24, 22)),
        (LORD_HOWE, at(2026, 4, 4, 12)),
        (LORD_HOWE, at(2026, 10, 3, 12)),
        (CAIRO, at(2026, 4, 23, 18)),
        (CAIRO, at(2026, 10, 29, 18)),
    ]
)


@given(minutes=_MINUTES, hours=_HOURS, day=st.sampled_from(["*", "*/2", "FRI,SUN"]), change=_CHANGES)
@settings(deadline=None, max_examples=100)
def test_an_expression_with_a_star_means_what_the_clock_on_the_wall_shows(
    minutes: tuple[str, list[int]], hours: tuple[str, list[int]], day: str, change: tuple[str, datetime]
) -> None:
    of_month, of_week = ("*", day) if day[0].isalpha() else (day, "*")
    zone, first = change
    timing = CronTiming(f"{minutes[0]} {hours[0]} {of_month} * {of_week}", zone)

    def shows(time: datetime) -> bool:
        wall = time.astimezone(ZoneInfo(zone))
        is_day = {"*": True, "*/2": wall.day % 2 == 1, "FRI,SUN": wall.isoweekday() in (5, 7)}[day]
        return wall.minute in minutes[1] and wall.hour in hours[1] and is_day

    every = [first + timedelta(minutes=minute) for minute in range(30 * 60)]
    assert times_within(timing, first, every[-1] + timedelta(minutes=1), 2_000) == list(filter(shows, every))


_WORDS = st.text(st.sampled_from("0123456789*/,-#LWMONSUJAFEB?"), max_size=8)


@given(fields=st.tuples(*[st.one_of(_WORDS, st.sampled_from(["*", "0", "L", "LW", "1#5", "*/7"]))] * 5))
@settings(deadline=None, max_examples=500)
def test_whatever_is_sent_for_an_expression_has_times_or_is_refused(fields: tuple[str, ...]) -> None:
    timing = CronTiming(" ".join(fields), ZURICH)
    refused: Refusal | None = None
    try:
        check_timing(timing, ScheduleLimits(), NOW)
    except Refusal as refusal:
        refused = refusal
    if refused is None:
        assert next_after(timing, NOW) is not None
    else:
        assert (refused.reason, refused.field) == ("invalid_value", "cron.expression")


_FAR = st.integers(-(10**9), 10**9).map(lambda second: at(2026, 1, 1) + timedelta(seconds=second))


@given(
    every_ms=st.integers(1, 10**9),
    anchor=_FAR,
    after=_FAR,
)
def test_an_interval_keeps_its_phase(every_ms: int, anchor: datetime, after: datetime) -> None:
    timing = IntervalTiming(every_ms, anchor)
    every, start = timedelta(milliseconds=every_ms), after
    first, second = islice(times_after(timing, start), 2)
    assert start < first <= start + every
    assert second - first == every
    assert timing.anchor is not None
    assert (first - timing.anchor) % every == timedelta(0)


def test_an_interval_without_an_anchor_begins_when_it_is_created() -> None:
    created = datetime(2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)
    timing = anchored(IntervalTiming(60_000), created)
    assert next_after(timing, created) == datetime(2026, 1, 1, 12, 1, 0, 123_000, tzinfo=UTC)
    given = IntervalTiming(60_000, ANCHOR)
    assert anchored(given, created) is given
    cron = CronTiming("* * * * *", "UTC")
    assert anchored(cron, created) is cron


def test_the_calendar_has_an_end() -> None:
    last = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    for timing in (IntervalTiming(3_600_000, ANCHOR), CronTiming("0 0 * * *", ZURICH), CronTiming("0 0 * * *", "UTC")):
        assert next_after(timing, last) is None


@pytest.mark.parametrize(
    "timing",
    [
        CronTiming("* * * * *", "UTC"),
        CronTiming("0 9 * * 1-5", ZURICH),
        CronTiming("30 4 L * *", "America/New_York"),
        CronTiming("0 12 29 feb mon#5", "UTC"),
        CronTiming(" 0   0 * * 7 ", "UTC"),
        IntervalTiming(60_000),
        IntervalTiming(315_360_000_000),
    ],
)
def test_what_a_schedule_may_have(timing: Timing) -> None:
    check_timing(timing, ScheduleLimits(), NOW)


@pytest.mark.parametrize(
    ("timing", "field"),
    [
        (CronTiming("", "UTC"), "cron.expression"),
        (CronTiming("* * * *", "UTC"), "cron.expression"),
        (CronTiming("* * * * * *", "UTC"), "cron.expression"),
        (CronTiming("@daily", "UTC"), "cron.expression"),
        (CronTiming("60 * * * *", "UTC"), "cron.expression"),
        (CronTiming("*/0 * * * *", "UTC"), "cron.expression"),
        (CronTiming("0 0 30 2 *", "UTC"), "cron.expression"),
        (CronTiming("0 0 * * L", "UTC"), "cron.expression"),
        (CronTiming("0 0 5-3 * *", "UTC"), "cron.expression"),
        (CronTiming("0 0 * * *" + " " * 192, "UTC"), "cron.expression"),
        (CronTiming("0 0 * * *", "Europe/Zuerich"), "cron.time_zone"),
        (CronTiming("0 0 * * *", "../../etc/passwd"), "cron.time_zone"),
        (CronTiming("0 0 * * *", "CET+99"), "cron.time_zone"),
        (IntervalTiming(59_999), "interval.every_ms"),
    ],
    ids=str,
)
def test_what_no_schedule_can_have(timing: Timing, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_timing(timing, ScheduleLimits(), NOW)
    assert (caught.value.reason, caught.value.field) == ("invalid_value", field)


@pytest.mark.parametrize("expression", ["*/4 * * * *", "0,4 3 * * *", "59 * * * *", "58,0 1,2 1 1 *"])
def test_the_shortest_distance_counts_for_cron_too(expression: str) -> None:
    timing = CronTiming(expression, ZURICH)
    check_timing(timing, ScheduleLimits(), NOW)
    if expression == "59 * * * *":
        check_timing(timing, ScheduleLimits(min_distance_ms=300_000), NOW)
        return
    with pytest.raises(Refusal) as caught:
        check_timing(timing, ScheduleLimits(min_distance_ms=300_000), NOW)
    assert caught.value.metadata == {"min_distance_ms": "300000"}
