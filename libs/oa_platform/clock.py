"""Time as a parameter, so that tests decide what time it is (`oa_testing.clock.FakeClock`)."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the time is, and waiting."""

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
        """Seconds from some fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def now_ms(self) -> int:
        """The wall clock in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def time(self) -> float:
        """The wall clock in seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from some fixed moment; never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
