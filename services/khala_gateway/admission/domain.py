"""Checks before anything is verified: the path, the page's origin, and whether there is room."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from oa_base.clock import MS_NS
from oa_base.rate import Rate, TokenBucket, TokenBuckets
from oa_base.refusal import Refusal
from services.khala_gateway.admission.limits import AdmissionLimits

PATH = "/khala/v1/ws"
FULL_RETRY_MS = 1_000
"""When to try again at a gateway that has no room, or goes away."""


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """`allowed_origins` holds the origins of our own web surfaces. A client that is not a page sends none and may
    connect."""

    allowed_origins: Collection[str]

    def check(self, origins: Sequence[str]) -> None:
        """Check a request's Origin headers. Raises Refusal `origin_not_allowed` if one is not on the list."""
        if any(origin not in self.allowed_origins for origin in origins):
            raise Refusal("origin_not_allowed", "pages of this origin may not connect; add it to OA_ALLOWED_ORIGINS")


class Room:
    """Limits the number of connections, and of handshakes per second."""

    def __init__(self, limits: AdmissionLimits, now_ms: int) -> None:
        self._limits = limits
        rate = Rate.per_second(limits.handshakes_per_s, limits.handshake_burst)
        self._handshakes = TokenBucket(rate, now_ms * MS_NS)
        self._draining = False

    def drain(self) -> None:
        """Admit no more clients."""
        self._draining = True

    def check(self) -> None:
        """Check that the gateway admits clients. Raises Refusal `draining`."""
        if self._draining:
            raise Refusal("draining", "this gateway is going away; connect again", retry_after_ms=FULL_RETRY_MS)

    def take(self, connections: int, now_ms: int) -> None:
        """Take room for one more, the last of `connections`. Raises Refusal `overloaded`."""
        if connections > self._limits.max_connections:
            raise Refusal("overloaded", "this gateway is full; try again", retry_after_ms=FULL_RETRY_MS)
        wait_ms = self._handshakes.take(now_ms * MS_NS).wait_ms
        if wait_ms:
            raise Refusal("overloaded", "too many clients are connecting at once; try again", retry_after_ms=wait_ms)


class Pace:
    """Limits how fast each network may connect, for the `addresses` that connected last."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._rate = Rate.per_second(limits.handshakes_per_s_per_address, limits.handshake_burst_per_address)
        self._buckets = TokenBuckets[str](limits.addresses)

    def take(self, network: str, now_ms: int) -> None:
        """Take one more handshake of `network`. Raises Refusal `rate_limited`."""
        taken = self._buckets.take(self._rate, network, now_ms * MS_NS)
        if taken.wait_ns:
            text = "too many clients are connecting from this address at once; try again"
            raise Refusal("rate_limited", text, retry_after_ms=taken.wait_ms)

    def __len__(self) -> int:
        return len(self._buckets)


def check_path(path: str) -> None:
    """Check a request's path. Raises Refusal `not_found` for anything but `PATH`."""
    if path.partition("?")[0] != PATH:
        raise Refusal("not_found", f"there is nothing here; connect to {PATH}")
