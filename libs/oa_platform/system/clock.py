"""The machine's clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """See `oa_base.clock.Clock`."""

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
