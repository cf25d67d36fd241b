"""What the edge reads from a request's headers, and how many calls it handles at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from oa_base.crowd import Shares
from oa_base.refusal import Refusal
from services.control.edge.limits import BODIES_PER_CALL

_TIMEOUT = re.compile(r"[0-9]{1,10}")
_PROTOCOL_VERSION = "1"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OVERLOADED_RETRY_MS = 200
CLIENT_BUILD_HEADER = "x-oa-client-build"
"""The header in which a client identifies itself: name/version."""
_OUR_BUILD = re.compile(r"(?:oa-[a-z-]+|khala-ts)/(.*)")
_NUMBERS = r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})"
_VERSION = re.compile(_NUMBERS + r"([-.]?[a-z][0-9A-Za-z.-]{0,32})?(?:\+[0-9A-Za-z.-]{1,64})?")


def check_protocol_version(version: str | None) -> None:
    """Raises Refusal `unsupported_protocol_version`. A client need not send its version."""
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

    `Host` has no scheme, and TLS may end at a proxy before us, so the default port is that of the origin's own scheme.
    """
    try:
        page, called = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS[page.scheme]
        same = (page.hostname, page.port or default) == (called.hostname, called.port or default)
    except (ValueError, KeyError):
        return False
    return same and bool(page.hostname) and origin.count("/") == 2 and not called.path


@dataclass(frozen=True, order=True, slots=True)
class Version:
    """The version of a release. A pre-release ("0.3.0-rc.1") is older than its release."""

    numbers: tuple[int, int, int]
    is_release: bool
    text: str = field(compare=False)

    @classmethod
    def of(cls, text: str) -> Version:
        """Parse a version from its text. Raises ValueError."""
        found = _VERSION.fullmatch(text)
        if found is None:
            raise ValueError("this is no version")
        major, minor, patch, before = found.groups()
        return cls((int(major), int(minor), int(patch)), before is None, text)


@dataclass(frozen=True, slots=True)
class ClientWindow:
    """The versions that are served, from the oldest to that of this installation."""

    lowest: Version
    newest: Version

    def check(self, build: str) -> None:
        """Check the header's value, which is empty for a client that sends none. Third-party programs are let in,
        because their versions are not ours. Raises Refusal `unsupported_client_build` with the window,
        `invalid_client_build`."""
        ours = _OUR_BUILD.fullmatch(build)
        if ours is None:
            return
        try:
            version = Version.of(ours[1])
        except ValueError:
            message = "the version of this client can't be read; send X-OA-Client-Build as name/1.2.3"
            raise Refusal("invalid_client_build", message, field=CLIENT_BUILD_HEADER) from None
        if version < self.lowest:
            served = f"{self.lowest.text} to {self.newest.text}"
            message = f"this client is older than the versions that the site serves, {served}; use one of these"
            window = {"lowest_version": self.lowest.text, "newest_version": self.newest.text}
            raise Refusal("unsupported_client_build", message, field=CLIENT_BUILD_HEADER, metadata=window)


class Room:
    """Room for calls of one kind of callers: `max_calls` at a time, of which at most `max_of_one` by one caller,
    and not all by the callers of one org.

    A request whose body is still arriving takes none of `max_calls`, so a slow request costs the others nothing. It
    counts for its own caller, and toward a separate bound (`BODIES_PER_CALL`).
    """

    def __init__(self, max_calls: int, max_of_one: int) -> None:
        self._max_of_one = max_of_one
        self._calls = Shares(max_calls)
        self._coming = Shares(max_calls * BODIES_PER_CALL)
        self._of: Counter[str] = Counter()

    @contextmanager
    def coming(self, caller: str, org_id: str = "") -> Iterator[None]:
        """Count a request of `caller`, from its head to its answer. Raises Refusal `overloaded`."""
        if self._of[caller] >= self._max_of_one:
            raise _overloaded(f"{self._max_of_one} calls of yours are going on; wait for one of them")
        if not self._coming.has_room(org_id):
            raise _overloaded("too many requests are on their way in; try again")
        self._coming.came(org_id)
        self._of[caller] += 1
        try:
            yield
        finally:
            self._coming.went(org_id)
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

    @contextmanager
    def working(self, org_id: str = "") -> Iterator[None]:
        """Count the work on a request when all that the work needs has arrived. Raises Refusal `overloaded`."""
        if not self._calls.has_room(org_id):
            raise _overloaded(f"the edge has {len(self._calls)} calls going on; try again")
        self._calls.came(org_id)
        try:
            yield
        finally:
            self._calls.went(org_id)


def _overloaded(message: str) -> Refusal:
    return Refusal("overloaded", message, retry_after_ms=_OVERLOADED_RETRY_MS)
