"""How many events of a run may go now: a token bucket. Pure: the caller passes the time."""

from __future__ import annotations


class Pacer:
    """At most `per_second` events in the long run, at most `burst` at once. Times are seconds of a monotonic clock."""

    def __init__(self, *, per_second: float, burst: int, now_s: float) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError("a pace is more than nothing")
        self._per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._at_s = now_s

    def available(self, now_s: float) -> int:
        """How many events may go now."""
        self._refill(now_s)
        return int(self._tokens)

    def spend(self, events: int, now_s: float) -> None:
        """Note that so many went; call it with no more than `available` gave."""
        self._refill(now_s)
        self._tokens -= events

    def wait_s(self, now_s: float) -> float:
        """Time until one event may go; 0 when it may now."""
        self._refill(now_s)
        return max(0.0, (1.0 - self._tokens) / self._per_second)

    def _refill(self, now_s: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._at_s) * self._per_second)
        self._at_s = max(self._at_s, now_s)
