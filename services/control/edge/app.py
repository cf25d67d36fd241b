"""How often one caller may call, by what the calls cost.

The buckets are in this process's memory, so with several replicas a caller has a set of them on each. They keep one
caller from using up a replica's capacity, and a database row for each call would cost more than most calls. Attempts
at secrets that a stranger could guess (sign-in codes) are counted in the database, by sign-in.
"""

from __future__ import annotations

from collections.abc import Mapping

from oa_base.clock import SECOND_NS, Clock
from oa_base.rate import Rate, TokenBuckets
from oa_base.refusal import Refusal
from services.control.edge.limits import CallClass

MAX_BUCKETS = 100_000
"""Maximum number of callers that are remembered. Beyond it, the caller that has been idle longest is forgotten."""


class CallRates:
    """The buckets. A caller that is not remembered has a full bucket."""

    def __init__(self, rates: Mapping[CallClass, Rate], clock: Clock, max_buckets: int = MAX_BUCKETS) -> None:
        self._rates = rates
        self._clock = clock
        self._buckets = TokenBuckets[tuple[CallClass, str]](max_buckets)

    def take(self, kind: CallClass, caller: str) -> None:
        """Take one call of `caller`'s. Raises Refusal `rate_limited`, with the wait."""
        now_ns = int(self._clock.monotonic() * SECOND_NS)
        taken = self._buckets.take(self._rates[kind], (kind, caller), now_ns)
        if taken.wait_ns:
            message = f"too many {kind.value} came from you; wait as long as Retry-After says"
            raise Refusal("rate_limited", message, retry_after_ms=taken.wait_ms)
