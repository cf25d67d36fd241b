"""Time as a parameter, so that tests decide what time it is, and the forms of a moment.

`oa_platform.system.clock.SystemClock` is the machine's clock, `oa_testing.clock.FakeClock` that of tests.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Protocol

MS_NS = 1_000_000
SECOND_NS = 1_000_000_000
LAST_NS = 253_402_300_799 * SECOND_NS
"""The last second that a time can have: the end of the year 9999."""
_US_NS = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Tells the time, and waits."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def now_ms(self) -> int:
        """The wall clock in milliseconds since 1970."""
        ...

    def time(self) -> float:
        """The wall clock in seconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait."""
        ...


def time_of(ns: int) -> datetime:
    """The moment so many nanoseconds after 1970, in whole microseconds, rounded down: databases count no finer."""
    return _EPOCH + timedelta(microseconds=ns // _US_NS)


def ns_of(time: datetime) -> int:
    """Nanoseconds from 1970 to a moment."""
    return duration_ns(time - _EPOCH)


def duration_ns(duration: timedelta) -> int:
    """A duration in nanoseconds."""
    return duration // _MICROSECOND * _US_NS
