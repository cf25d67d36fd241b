"""Who is let in, before anything is verified: the path, the page's origin, and whether there is room."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from oa_base.clock import MS_NS
from oa_base.rate import Rate, TokenBucket
from oa_base.refusal import Refusal
from services.khala_gateway.admission.limits import AdmissionLimits

PATH = "/khala/v1/ws"
_RETRY_MS = 1_000


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

    def take(self, connections: int, now_ms: int) -> None:
        """Room for one more, the last of `connections`. Raises Refusal `draining` or `overloaded`."""
        if self._draining:
            raise Refusal("draining", "this gateway is going away; connect again", retry_after_ms=_RETRY_MS)
        if connections > self._limits.max_connections:
            raise Refusal("overloaded", "this gateway is full; try again", retry_after_ms=_RETRY_MS)
        wait_ms = self._handshakes.take(now_ms * MS_NS).wait_ms
        if wait_ms:
            raise Refusal("overloaded", "too many clients are connecting at once; try again", retry_after_ms=wait_ms)


def check_path(path: str) -> None:
    """Raises Refusal `not_found` for a request to anything but `PATH`."""
    if path.partition("?")[0] != PATH:
        raise Refusal("not_found", f"there is nothing here; connect to {PATH}")
