"""Who is let in, before anything is verified: the path, the page's origin, and whether there is room."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from oa_base.clock import MS_NS
from oa_base.rate import Rate, TokenBucket, TokenBuckets
from oa_base.refusal import Refusal
from services.khala_gateway.admission.limits import AdmissionLimits

PATH = "/khala/v1/ws"
_RETRY_MS = 1_000
# A connection of one's own that makes room seldom ends sooner.
_CROWDED_RETRY_MS = 5_000


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """`allowed_origins` holds the origins of our own web surfaces. A client that is no page sends none, and may."""

    allowed_origins: Collection[str]

    def check(self, origins: Sequence[str]) -> None:
        """Raises Refusal `origin_not_allowed` if one of a request's Origin headers is not on the list."""
        if any(origin not in self.allowed_origins for origin in origins):
            raise Refusal("origin_not_allowed", "pages of this origin may not connect; add it to OA_ALLOWED_ORIGINS")


class Room:
    """How many connections there may be, and how many handshakes a second."""

    def __init__(self, limits: AdmissionLimits, now_ms: int) -> None:
        self._limits = limits
        rate = Rate.per_second(limits.handshakes_per_s, limits.handshake_burst)
        self._handshakes = TokenBucket(rate, now_ms * MS_NS)
        self._draining = False

    def drain(self) -> None:
        """Let nobody in any more."""
        self._draining = True

    def check(self) -> None:
        """Raises Refusal `draining`."""
        if self._draining:
            raise Refusal("draining", "this gateway is going away; connect again", retry_after_ms=_RETRY_MS)

    def take(self, connections: int, now_ms: int) -> None:
        """Room for one more, the last of `connections`. Raises Refusal `overloaded`."""
        if connections > self._limits.max_connections:
            raise Refusal("overloaded", "this gateway is full; try again", retry_after_ms=_RETRY_MS)
        wait_ms = self._handshakes.take(now_ms * MS_NS).wait_ms
        if wait_ms:
            raise Refusal("overloaded", "too many clients are connecting at once; try again", retry_after_ms=wait_ms)


class Crowd:
    """How many connections each of some kind has ("network", "session", …), at most `limit`; bounded by how many there
    are."""

    def __init__(self, kind: str, limit: int) -> None:
        self._kind = kind
        self._limit = limit
        self._here: Counter[str] = Counter()

    def check(self, one: str) -> None:
        """Raises Refusal `rate_limited` when `one` has as many as it may have; an empty one is nobody."""
        if one and self._here.get(one, 0) >= self._limit:
            text = f"a {self._kind} has at most {self._limit} connections; close some, then try again"
            raise Refusal("rate_limited", text, retry_after_ms=_CROWDED_RETRY_MS)

    def came(self, one: str) -> None:
        """`one` has a connection more."""
        self._here[one] += 1

    def went(self, one: str) -> None:
        """`one` has a connection less."""
        self._here[one] -= 1
        if not self._here[one]:
            del self._here[one]

    def __len__(self) -> int:
        return len(self._here)


class Pace:
    """How fast each network may come, for the `addresses` that came last."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._rate = Rate.per_second(limits.handshakes_per_s_per_address, limits.handshake_burst_per_address)
        self._buckets = TokenBuckets[str](limits.addresses)

    def take(self, network: str, now_ms: int) -> None:
        """One more of `network`. Raises Refusal `rate_limited`."""
        taken = self._buckets.take(self._rate, network, now_ms * MS_NS)
        if taken.wait_ns:
            text = "too many clients are connecting from this address at once; try again"
            raise Refusal("rate_limited", text, retry_after_ms=taken.wait_ms)

    def __len__(self) -> int:
        return len(self._buckets)


def check_path(path: str) -> None:
    """Raises Refusal `not_found` for a request to anything but `PATH`."""
    if path.partition("?")[0] != PATH:
        raise Refusal("not_found", f"there is nothing here; connect to {PATH}")
