"""How often one caller may call, by what the calls cost.

The buckets are in this process's memory, so with several replicas a caller has them once on each: they keep one caller
from taking what a replica has, and a row of a database for each call would cost more than most calls. What a stranger
could guess at (codes of sign-in) is counted in the database, by sign-in.
"""

from __future__ import annotations

from collections.abc import Mapping

from oa_base.clock import SECOND_NS, Clock
from oa_base.rate import Rate, take
from oa_base.refusal import Refusal
from services.control.edge.limits import CallClass

MAX_BUCKETS = 100_000
"""Maximum number of callers that are remembered at a time. Beyond it the one that came first is forgotten."""


class CallRates:
    """The buckets. A bucket is full for who is not remembered."""

    def __init__(self, rates: Mapping[CallClass, Rate], clock: Clock, max_buckets: int = MAX_BUCKETS) -> None:
        self._rates = rates
        self._clock = clock
        self._max_buckets = max_buckets
        self._full_at_ns: dict[tuple[CallClass, str], int] = {}

    def take(self, kind: CallClass, caller: str) -> None:
        """Take one call of `caller`'s. Raises Refusal `rate_limited`, with the wait."""
        key, now_ns = (kind, caller), int(self._clock.monotonic() * SECOND_NS)
        taken = take(self._rates[kind], self._full_at_ns.get(key, now_ns), now_ns)
        if taken.wait_ns:
            message = f"too many {kind.value} came from you; wait as long as Retry-After says"
            raise Refusal("rate_limited", message, retry_after_ms=taken.wait_ms)
        self._full_at_ns[key] = taken.full_at_ns
        if len(self._full_at_ns) > self._max_buckets:
            self._forget(now_ns)

    def _forget(self, now_ns: int) -> None:
        """Forget what is full, and of the rest so many of the first that a tenth is free: forgetting is rare then."""
        waiting = {key: full_at_ns for key, full_at_ns in self._full_at_ns.items() if full_at_ns > now_ns}
        surplus = max(0, len(waiting) - self._max_buckets * 9 // 10)
        self._full_at_ns = dict(list(waiting.items())[surplus:])
