"""Pages of history that were read a moment ago, for clients that want the same ones now.

The contents of a page never change within its epoch, so it may be handed out again. When many clients come back
together, each page of a topic is read once for all of them, not again for each one that comes a little later.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

P = TypeVar("P")
K = TypeVar("K")


class KeptPages(Generic[K, P]):
    """Keeps at most `max_bytes`, and none for longer than `max_age_s`: data purged from history soon leaves here too.

    Using a page does not extend its time. When there is no room, the least recently used page is removed first.
    """

    def __init__(self, max_bytes: int, max_age_s: float) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._pages: OrderedDict[K, tuple[P, int, float]] = OrderedDict()
        self.bytes = 0

    def get(self, key: K, now_s: float) -> P | None:
        """The page, if it is kept."""
        found = self._pages.get(key)
        if found is None:
            return None
        page, _, read_s = found
        if now_s - read_s > self._max_age_s:
            self._remove(key)
            return None
        self._pages.move_to_end(key)
        return page

    def keep(self, key: K, page: P, size: int, now_s: float) -> None:
        """Keep a page that was read now."""
        if size > self._max_bytes:
            return
        self._remove(key)
        self._pages[key] = page, size, now_s
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._remove(next(iter(self._pages)))

    def forget_old(self, now_s: float) -> None:
        """Remove pages that are too old."""
        for key in [key for key, (_, _, read_s) in self._pages.items() if now_s - read_s > self._max_age_s]:
            self._remove(key)

    def _remove(self, key: K) -> None:
        found = self._pages.pop(key, None)
        if found is not None:
            self.bytes -= found[1]
