"""The authority's time, as a worker knows it. The times of a run count by it: the run's next worker, and the people who
see a deadline, have other clocks, and the clock of a worker's machine may be wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def elapsed_s() -> float:
    """Seconds since some fixed moment. Steps of the machine's clock don't change them, and time in which the machine
    sleeps counts, where the system has such a clock."""
    if not hasattr(time, "clock_gettime"):  # on Windows
        return time.monotonic()
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def own_now() -> datetime:
    """The time by the machine's own clock, in UTC."""
    return datetime.now(UTC)


class AuthorityClock:
    """Goes on from what the authority said last; the machine's own clock until then."""

    def __init__(self, elapsed_s: Callable[[], float] = elapsed_s) -> None:
        self._elapsed_s = elapsed_s
        self._told: tuple[datetime, float] | None = None

    def set(self, time: datetime) -> None:
        """Note the time that the authority has just stated."""
        self._told = time, self._elapsed_s()

    def now(self) -> datetime:
        """The time, in UTC."""
        if self._told is None:
            return own_now()
        time, then_s = self._told
        return time + timedelta(seconds=self._elapsed_s() - then_s)
