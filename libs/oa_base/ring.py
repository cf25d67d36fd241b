"""The known part of a sequence of numbered items: a ring of the newest ones, and the hole in front of missing ones.

An item whose number follows on the head is taken, one at or below the head is dropped, and one above tells that
something is missing. What is missing is read elsewhere and offered in the same way: so items may come twice, late and
out of order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

E = TypeVar("E")


class Hole(NamedTuple):
    """Numbers `after + 1` to `up_to` are missing."""

    after: int
    up_to: int


class Ring(Generic[E]):
    """`head` is the number of the newest item, and `known_head` of the newest that is known to exist.

    It holds the newest items up to `max_items` and `max_bytes`, as `size` counts them. The newest item stays even when
    it alone is larger.
    """

    def __init__(self, head: int, size: Callable[[E], int], max_items: int, max_bytes: int) -> None:
        self.head = head
        self.known_head = head
        self._size = size
        self._max_items = max_items
        self._max_bytes = max_bytes
        # The ring is `_held[_gone:]`; what has gone is cut off in bulk, so that an eviction is O(1).
        self._held: list[E] = []
        self._gone = 0
        self._bytes = 0

    @property
    def ring_start(self) -> int:
        """Lowest number in the ring; `head + 1` when it is empty."""
        return self.head + 1 - (len(self._held) - self._gone)

    @property
    def ring_bytes(self) -> int:
        """Total size of the items in the ring."""
        return self._bytes

    @property
    def hole(self) -> Hole | None:
        """The hole that has to be read before the head can advance; None when nothing is missing."""
        return Hole(self.head, self.known_head) if self.known_head > self.head else None

    def expect(self, number: int) -> None:
        """Note that an item with this number exists."""
        self.known_head = max(self.known_head, number)

    def expect_nothing(self) -> None:
        """Note that, as far as is known, nothing follows on the head."""
        self.known_head = self.head

    def take(self, first: int, items: Sequence[E]) -> Sequence[E]:
        """Add the items `first`, `first + 1`, …: those that follow the head are kept and returned."""
        if not items:
            return items
        self.known_head = max(self.known_head, first + len(items) - 1)
        if first > self.head + 1:
            return ()
        fresh = items[self.head + 1 - first :]
        self._append(fresh)
        return fresh

    def slice(self, first: int, max_items: int, max_bytes: int) -> list[E] | None:
        """Consecutive items from `first` on, within both limits but at least one.

        Empty when `first` is above the head, None when it is below the ring.
        """
        start = first - self.ring_start
        if start < 0:
            return None
        taken = self._held[self._gone + start : self._gone + start + max_items]
        total = 0
        for count, item in enumerate(taken):
            total += self._size(item)
            if total > max_bytes and count > 0:
                return taken[:count]
        return taken

    def _append(self, items: Sequence[E]) -> None:
        self._held.extend(items)
        self.head += len(items)
        self._bytes += sum(map(self._size, items))
        while (held := len(self._held) - self._gone) > self._max_items or (self._bytes > self._max_bytes and held > 1):
            self._bytes -= self._size(self._held[self._gone])
            self._gone += 1
        if self._gone > len(self._held) // 2:
            del self._held[: self._gone]
            self._gone = 0
