"""Clocks for tests: one that stands still until it is advanced and wakes sleepers exactly, and one that is wrong."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from oa_base.clock import Clock
from oa_platform.system.clock import SystemClock

_START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """Wall and monotonic time that move together, by `advance` only."""

    def __init__(self, start: datetime = _START) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self._start + timedelta(seconds=self._elapsed_s)

    def now_ms(self) -> int:
        """The wall clock in milliseconds since 1970."""
        return round(self.now().timestamp() * 1000)

    def time(self) -> float:
        """The wall clock in seconds since 1970."""
        return self.now().timestamp()

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by `seconds`, at least one turn of the loop, as in asyncio.sleep."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time forward, waking sleepers in order, each at its own time, and let the tasks that they start run.

        A sleeper that sleeps again within the span wakes again within it.
        """
        end = self._elapsed_s + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, future = heapq.heappop(self._sleepers)
            self._elapsed_s = max(self._elapsed_s, moment)
            if not future.done():
                future.set_result(None)
            await _settle()
        self._elapsed_s = end

    @property
    def sleeping(self) -> int:
        """How many sleepers are waiting."""
        return sum(not future.done() for _, _, future in self._sleepers)


class SkewedClock:
    """A clock whose wall time is wrong by `skew_ms()`, which may change at any time. Its monotonic time is right."""

    def __init__(self, skew_ms: Callable[[], float], clock: Clock | None = None) -> None:
        self._skew_ms = skew_ms
        self._clock: Clock = clock or SystemClock()

    def now(self) -> datetime:
        """The wrong wall clock, in UTC."""
        return self._clock.now() + timedelta(milliseconds=self._skew_ms())

    def now_ms(self) -> int:
        """The wrong wall clock in milliseconds since 1970."""
        return round(self._clock.now_ms() + self._skew_ms())

    def time(self) -> float:
        """The wrong wall clock in seconds since 1970."""
        return self._clock.time() + self._skew_ms() / 1000

    def monotonic(self) -> float:
        """Seconds of the monotonic clock, which is right."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await self._clock.sleep(seconds)


async def _settle(turns: int = 10) -> None:
    """Let the tasks that are ready run, and those that they make ready."""
    for _ in range(turns):
        await asyncio.sleep(0)
