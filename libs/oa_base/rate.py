"""A token bucket that is a single number, by the generic cell rate algorithm. The caller passes the time.

The number is the moment at which the bucket is full again. What is taken moves it on by its share of the rate, and
nothing is taken that would move it further than a whole burst away.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Self, TypeVar

from oa_base.clock import MS_NS, SECOND_NS, duration_ns

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, and one more every `period_ns`."""

    burst: int
    period_ns: int

    def __post_init__(self) -> None:
        if self.burst < 1 or self.period_ns < 1:
            raise ValueError("a rate is more than nothing, and takes time")

    @classmethod
    def per_second(cls, count: float, burst: int) -> Self:
        """`burst` at once, and a sustained `count` per second."""
        return cls(burst, int(SECOND_NS // count) if count > 0 else 0)

    @classmethod
    def every(cls, period: timedelta, burst: int) -> Self:
        """`burst` at once, and one more every `period`."""
        return cls(burst, duration_ns(period))

    @property
    def burst_ns(self) -> int:
        """How long an empty bucket takes to be full."""
        return self.burst * self.period_ns


@dataclass(frozen=True, slots=True)
class Taken:
    """The result of taking. If `wait_ns` is not 0, nothing was taken; waiting that long suffices, and less does not."""

    full_at_ns: int
    wait_ns: int = 0

    @property
    def wait_ms(self) -> int:
        """The wait in whole milliseconds, rounded up."""
        return -(-self.wait_ns // MS_NS)


def take(rate: Rate, full_at_ns: int, now_ns: int, count: int = 1) -> Taken:
    """Take `count` at once, all or none, from a bucket that is full at `full_at_ns`.

    When the clock was set back, the bucket is empty, no more: it is never further from full than a whole burst.
    """
    start_ns = now_ns + _owed_ns(rate, full_at_ns, now_ns)
    after_ns = start_ns + count * rate.period_ns
    over_ns = after_ns - now_ns - rate.burst_ns
    return Taken(start_ns, over_ns) if over_ns > 0 else Taken(after_ns)


def available(rate: Rate, full_at_ns: int, now_ns: int) -> int:
    """How many can be taken now."""
    return (rate.burst_ns - _owed_ns(rate, full_at_ns, now_ns)) // rate.period_ns


def _owed_ns(rate: Rate, full_at_ns: int, now_ns: int) -> int:
    return min(max(0, full_at_ns - now_ns), rate.burst_ns)


class TokenBucket:
    """A bucket in memory. It is full when it is made, at `now_ns` of its clock."""

    def __init__(self, rate: Rate, now_ns: int) -> None:
        self._rate = rate
        self._full_at_ns = now_ns

    def take(self, now_ns: int, count: int = 1) -> Taken:
        """Take `count`, or take nothing and return how long to wait."""
        taken = take(self._rate, self._full_at_ns, now_ns, count)
        self._full_at_ns = taken.full_at_ns
        return taken

    def available(self, now_ns: int) -> int:
        """How many can be taken now."""
        return available(self._rate, self._full_at_ns, now_ns)

    def wait_ns(self, now_ns: int) -> int:
        """How long until one can be taken; 0 when it can be now. Takes nothing."""
        return take(self._rate, self._full_at_ns, now_ns).wait_ns


class TokenBuckets(Generic[K]):
    """A bucket for each key, in memory. The least recently used one is dropped when there are more than
    `max_keys`, and is full when it is used again."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        # In the order of their last use.
        self._full_at_ns: dict[K, int] = {}

    def take(self, rate: Rate, key: K, now_ns: int) -> Taken:
        """Take one from the bucket of `key`, or take nothing and return how long to wait."""
        taken = take(rate, self._full_at_ns.pop(key, now_ns), now_ns)
        self._full_at_ns[key] = taken.full_at_ns
        if len(self._full_at_ns) > self._max_keys:
            del self._full_at_ns[next(iter(self._full_at_ns))]
        return taken

    def __len__(self) -> int:
        return len(self._full_at_ns)
