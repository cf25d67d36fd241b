"""Times and durations as a person writes them on the command line, and times as `oa` shows them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d)", re.ASCII)
_TO_SECONDS = len("2026-12-01T08:00:00")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def time_words(time: str) -> str:
    """Return a time of the contracts (RFC 3339, in UTC) as it is shown to people: to the second, and with its zone, so
    that nobody takes it for local time. Empty if there is none. Options that take a time take it in this form.
    """
    return f"{time[:_TO_SECONDS]}Z" if time else ""


class Duration(click.ParamType[timedelta]):
    """ "500ms", "10s", "5m", "2h", "1d"; the value is a timedelta. `zero`: whether 0 is a duration, too.
    `max_duration`: the maximum of the contract, where the field could not even hold a longer one."""

    name = "duration"

    def __init__(self, *, zero: bool, max_duration: timedelta | None = None) -> None:
        self._zero = zero
        self.max_duration = max_duration

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration. Any other value is a usage error."""
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail("Give a number with a unit: 500ms, 10s, 5m, 2h or 1d.", param, ctx)
        if int(found[1]) == 0 and not self._zero:
            # Services take 0 as "not set": a key with the lifetime 0 would never end.
            self.fail("Give a duration of more than 0; leave the option out for its default.", param, ctx)
        try:
            duration = int(found[1]) * _UNITS[found[2]]
        except OverflowError:
            return self.fail("Give a duration of less than 2 million years.", param, ctx)
        if self.max_duration is not None and duration > self.max_duration:
            self.fail(f"Give at most {self.max_duration // _UNITS['h']}h.", param, ctx)
        return duration


class Moment(click.ParamType[datetime]):
    """A time such as 2026-12-01T08:00+01:00, in UTC without an offset; a date. The value is in UTC.

    There is no "from now": our clock may be wrong, and only some commands know that of the site."""

    name = "time"
    forms = "2026-12-01T08:00+01:00, in UTC without an offset"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time. Any other value is a usage error."""
        if isinstance(value, datetime):
            return value
        try:
            time = datetime.fromisoformat(str(value))
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            return self.fail(f"Give a time as {self.forms}.", param, ctx)


class _MomentOf(Moment):
    forms = f"{Moment.forms}, or +10m"


class MomentOrDelay(click.ParamType[datetime | timedelta]):
    """A `Moment`, or the timedelta of +10m, which counts by the site's clock (`site_clock`)."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime | timedelta:
        """Return the time or the delay. Any other value is a usage error."""
        if isinstance(value, timedelta):
            return value
        text = str(value)
        if text.startswith("+"):
            return DURATION_OR_ZERO.convert(text[1:], param, ctx)
        return _MomentOf().convert(value, param, ctx)


DURATION, DURATION_OR_ZERO = Duration(zero=False), Duration(zero=True)
"""Only an option that says what 0 means takes DURATION_OR_ZERO."""
UP_TO_A_DAY = Duration(zero=False, max_duration=timedelta(days=1))
"""For what operators decide on web requests: steps of canaries, waits, bypasses."""
MOMENT, MOMENT_OR_DELAY = Moment(), MomentOrDelay()
