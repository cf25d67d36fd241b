"""What the edge reads from a request's headers, and how many calls it has going on at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from oa_base.refusal import Refusal
from services.control.edge.limits import BODIES_PER_CALL

_TIMEOUT = re.compile(r"[0-9]{1,10}")
_PROTOCOL_VERSION = "1"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OVERLOADED_RETRY_MS = 200


def check_protocol_version(version: str | None) -> None:
    """Raises Refusal `unsupported_protocol_version`; a client needs not say its version."""
    if version not in (None, _PROTOCOL_VERSION):
        message = "this version of the Connect protocol is not spoken here; use version 1"
        raise Refusal("unsupported_protocol_version", message)


def timeout_s(headers: Mapping[str, str], max_s: float) -> float:
    """Time for the call: what `Connect-Timeout-Ms` asks for, at most `max_s`. Raises Refusal `invalid_value`."""
    given = headers.get("connect-timeout-ms")
    if given is None:
        return max_s
    if not _TIMEOUT.fullmatch(given):
        message = "the value of Connect-Timeout-Ms is no number of milliseconds; send a whole one of at most 10 digits"
        raise Refusal("invalid_value", message, field="connect-timeout-ms")
    return min(int(given) / 1000, max_s)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` calls the host that it came from.

    `Host` has no scheme, and TLS may end at a proxy before us: so the origin's own scheme says which port goes unsaid.
    """
    try:
        page, called = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS[page.scheme]
        same = (page.hostname, page.port or default) == (called.hostname, called.port or default)
    except (ValueError, KeyError):
        return False
    return same and bool(page.hostname) and origin.count("/") == 2 and not called.path


class Room:
    """Room for calls of one kind of callers: `max_calls` at a time, of which no more than `max_of_one` of one caller.

    A request whose body is still on its way takes none of `max_calls`, so that a slow one costs the others nothing. It
    counts for its own caller, and in a bound of its own (`BODIES_PER_CALL`).
    """

    def __init__(self, max_calls: int, max_of_one: int) -> None:
        self._max_calls = max_calls
        self._max_of_one = max_of_one
        self._calls = 0
        self._of: Counter[str] = Counter()

    @contextmanager
    def coming(self, caller: str) -> Iterator[None]:
        """A request of `caller`, from its head to its answer. Raises Refusal `overloaded`."""
        if self._of[caller] >= self._max_of_one:
            raise _overloaded(f"{self._max_of_one} calls of yours are going on; wait for one of them")
        if self._of.total() >= self._max_calls * BODIES_PER_CALL:
            raise _overloaded("too many requests are on their way in; try again")
        self._of[caller] += 1
        try:
            yield
        finally:
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work on a request of which all that the work needs is there. Raises Refusal `overloaded`."""
        if self._calls >= self._max_calls:
            raise _overloaded(f"the edge has {self._calls} calls going on; try again")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1


def _overloaded(message: str) -> Refusal:
    return Refusal("overloaded", message, retry_after_ms=_OVERLOADED_RETRY_MS)
