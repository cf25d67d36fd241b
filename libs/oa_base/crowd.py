"""How much each member of a kind has open: connections of a network, for example; and how many share a number of
places."""

from __future__ import annotations

from collections import Counter

from oa_base.refusal import Refusal

# Connections of the same client seldom end sooner and make room.
_CROWDED_RETRY_MS = 5_000
OWN_PER_FREE = 8
"""How many places one member may have for each place that is free: alone eight ninths of all, and two of them eight
seventeenths each. So whoever floods, there is room left for who comes after it."""


class Crowd:
    """Counts what each member of a kind ("network", "session", …) has open, at most `limit` each. Its size is bounded
    by the number of things that are open."""

    def __init__(self, kind: str, limit: int, things: str = "connections") -> None:
        """`things` is what they have open, for the refusal."""
        self._kind = kind
        self._things = things
        self._limit = limit
        self._here: Counter[str] = Counter()

    def check(self, one: str) -> None:
        """Raises Refusal `rate_limited` when `one` has as many as it may have; an empty `one` has no limit."""
        if one and self._here.get(one, 0) >= self._limit:
            text = f"a {self._kind} has at most {self._limit} {self._things}; close some, then try again"
            raise Refusal("rate_limited", text, retry_after_ms=_CROWDED_RETRY_MS)

    def came(self, one: str) -> None:
        """Count one more of `one`."""
        self._here[one] = self._here.get(one, 0) + 1  # `+=` calls a method of Python for each new one

    def went(self, one: str) -> None:
        """Count one fewer of `one`."""
        self._here[one] -= 1
        if not self._here[one]:
            del self._here[one]

    def __len__(self) -> int:
        return len(self._here)


class Shares:
    """Shares a number of places among members ("org"), so that none of them can take all.

    Nobody has a fixed share: what a member may have depends on what is free (dynamic thresholds, as in switches that
    share a buffer). Its size is bounded by the number of places that are taken. What takes several places, such as
    bytes, finds room as long as one is free, so that it may exceed them once.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._all = 0
        self._taken: Counter[str] = Counter()

    def has_room(self, one: str) -> bool:
        """Whether `one` may take another place. An empty `one` may as long as any is free."""
        free = self._places - self._all
        return free > 0 and (not one or self._taken[one] < OWN_PER_FREE * free)

    def came(self, one: str, places: int = 1) -> None:
        """Count so many more places of `one`."""
        self._all += places
        self._taken[one] += places

    def went(self, one: str, places: int = 1) -> None:
        """Count so many fewer places of `one`."""
        self._all -= places
        self._taken[one] -= places
        if not self._taken[one]:
            del self._taken[one]

    def __len__(self) -> int:
        return self._all
