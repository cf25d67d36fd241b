"""The times of a schedule. Times are UTC, and each is later than the one before it.

Cron expressions are read as Debian's cron reads them, including daylight saving. At fixed hours, a time that does not
exist on a day is replaced by the next minute that exists, and a time that occurs twice means the first of the two. An
expression whose minute or hour begins with `*` follows local time: it skips the missing times and repeats the doubled
ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from heapq import merge
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from oa_base.refusal import Refusal
from services.runtime.schedules.limits import ScheduleLimits

_FIELDS = 5
_LOOKED_AT = 200
"""How many next times of a cron expression are checked against the minimum distance."""
_LOOK_AHEAD = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class CronTiming:
    """Times by a cron expression of five fields, read in an IANA time zone."""

    expression: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class IntervalTiming:
    """Times at multiples of `every_ms` from the anchor, also before it. Without an anchor, from the creation."""

    every_ms: int
    anchor: datetime | None = None


Timing = CronTiming | IntervalTiming


def anchored(timing: Timing, now: datetime) -> Timing:
    """The timing with an anchor, if it needs one and has none."""
    if isinstance(timing, IntervalTiming) and timing.anchor is None:
        return replace(timing, anchor=now.replace(microsecond=now.microsecond // 1000 * 1000))
    return timing


def times_after(timing: Timing, after: datetime) -> Iterator[datetime]:
    """The times later than `after`, in order, until there are no more. Raises Refusal `invalid_value`."""
    return _interval_times(timing, after) if isinstance(timing, IntervalTiming) else _cron_times(timing, after)


def next_after(timing: Timing, after: datetime) -> datetime | None:
    """The first time later than `after`; None when there is none. Raises Refusal `invalid_value`."""
    return next(times_after(timing, after), None)


def times_within(timing: Timing, start: datetime, end: datetime, max_times: int) -> list[datetime]:
    """The first `max_times` times at or after `start` and before `end`. Raises Refusal `invalid_value`."""
    found = times_after(timing, start - timedelta(microseconds=1))
    return list(islice(takewhile(lambda time: time < end, found), max_times))


def _interval_times(timing: IntervalTiming, after: datetime) -> Iterator[datetime]:
    assert timing.anchor is not None, "anchored when it was created"
    every = timedelta(milliseconds=timing.every_ms)
    try:
        time = timing.anchor + ((after - timing.anchor) // every + 1) * every
        while True:
            yield time
            time += every
    except OverflowError:  # the end of the calendar
        return


def _cron_times(timing: CronTiming, after: datetime) -> Iterator[datetime]:
    try:
        local = after.astimezone(_zone(timing.time_zone))
        for time in _times_by_the_wall(timing, local) if _follows_local_time(timing) else _fixed_times(timing, local):
            if time > after:  # a time that does not exist may be moved to the next one
                after = time
                yield time
    except OverflowError:
        return
    except (AssertionError, ValueError) as error:  # a defect of the library must not end the process
        text = f"the times of this expression can't be told ({type(error).__name__}); write it in another way"
        raise Refusal("invalid_value", text, field="cron.expression") from error


def _follows_local_time(timing: CronTiming) -> bool:
    minute, hour, *_ = (*timing.expression.split(), "", "")
    return minute.startswith("*") or hour.startswith("*")


def _fixed_times(timing: CronTiming, after: datetime) -> Iterator[datetime]:
    return (local.astimezone(UTC) for local in _cron(timing.expression, after))


def _times_by_the_wall(timing: CronTiming, after: datetime) -> Iterator[datetime]:
    """The times at which the clock on the wall shows what the expression says; a doubled time may come twice in a row.

    CronSim reads the expression without a zone, and what its times mean is decided here: where a day begins in a gap,
    or clocks change by half an hour, it leaves out times that exist, and returns some that do not.
    """
    # After the clock is set back, it shows again what it showed before.
    start = min(after.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1)) + after.astimezone(UTC)
    walls = (_on_the_wall(timing, start.replace(tzinfo=None), after.tzinfo, fold) for fold in (0, 1))
    return merge(*walls)


def _on_the_wall(timing: CronTiming, start: datetime, zone: tzinfo | None, fold: int) -> Iterator[datetime]:
    """The times when the clock shows the expression for the first time (`fold` 0), or for the last time (1)."""
    for wall in _cron(timing.expression, start):
        time = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if time.astimezone(zone).replace(tzinfo=None) == wall:  # else the clock never shows it
            yield time


def _cron(expression: str, after: datetime) -> CronSim:
    try:
        if len(expression.split()) == _FIELDS:
            return CronSim(expression, after)
        why = f"it has {len(expression.split())} fields"
    except (CronSimError, AssertionError, ValueError) as error:
        why = str(error) or "it can't be read"
    text = f"this is no cron expression ({why}); give minute, hour, day of month, month and day of week"
    raise Refusal("invalid_value", text, field="cron.expression")


@lru_cache(1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str) -> ZoneInfo:
    try:
        if name in _zones():
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    text = 'there is no such time zone here; give a name of the IANA database, such as "Europe/Zurich"'
    raise Refusal("invalid_value", text, field="cron.time_zone")


def check_timing(timing: Timing, limits: ScheduleLimits, now: datetime) -> None:
    """Raise Refusal `invalid_value` for a timing that a new schedule can't have."""
    if isinstance(timing, IntervalTiming):
        if timing.every_ms < limits.min_distance_ms:
            raise _too_close("interval.every_ms", limits)
        return
    if len(timing.expression) > limits.max_cron_chars:
        text = f"a cron expression has at most {limits.max_cron_chars} characters; give a shorter one"
        raise Refusal("invalid_value", text, field="cron.expression")
    looked_at = list(islice(takewhile(lambda time: time < now + _LOOK_AHEAD, times_after(timing, now)), _LOOKED_AT))
    if not looked_at and next_after(timing, now) is None:
        text = "the expression has no time in the next 50 years; give one that has"
        raise Refusal("invalid_value", text, field="cron.expression")
    shortest = timedelta(milliseconds=limits.min_distance_ms)
    if any(later - earlier < shortest for earlier, later in pairwise(looked_at)):
        raise _too_close("cron.expression", limits)


def _too_close(field: str, limits: ScheduleLimits) -> Refusal:
    text = f"two times of a schedule must be at least {limits.min_distance_ms} ms apart"
    return Refusal("invalid_value", text, field=field, metadata={"min_distance_ms": str(limits.min_distance_ms)})
