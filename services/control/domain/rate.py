"""Rate limits as one number a bucket (GCRA): the moment at which the bucket would be empty again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` at once, and one more every `period`."""

    burst: int
    period: timedelta


@dataclass(frozen=True, slots=True)
class Taken:
    """The bucket after asking. `wait` is None when there was room; otherwise how long until there is, and then the
    bucket is as before: a refused request costs nothing, so waiting that long is always enough."""

    empty_at: datetime
    wait: timedelta | None = None


def take(limit: Limit, empty_at: datetime | None, now: datetime) -> Taken:
    """Take one from a bucket that is empty at `empty_at` (None for a new one)."""
    start = max(empty_at or now, now)
    after = start + limit.period
    overflow = after - now - limit.burst * limit.period
    return Taken(start, overflow) if overflow > timedelta(0) else Taken(after)
