"""How many streams of workers each org has on this replica: one org must not take the room of all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from oa_base.refusal import Refusal

_RETRY_AFTER_MS = 1_000


class OrgStreams:
    """Counts the streams of each org, also those that have not introduced their worker yet."""

    def __init__(self, max_of_org: int) -> None:
        self._max_of_org = max_of_org
        self._open: Counter[str] = Counter()

    @contextmanager
    def room(self, org_id: str) -> Iterator[None]:
        """Count a stream while it lasts. Raises Refusal `overloaded` for an org that has the maximum."""
        if self._open[org_id] >= self._max_of_org:
            message = (
                f"this replica already has {self._max_of_org} streams of the org's workers; end some, or try again"
            )
            raise Refusal("overloaded", message, retry_after_ms=_RETRY_AFTER_MS)
        self._open[org_id] += 1
        try:
            yield
        finally:
            self._open[org_id] -= 1
            if not self._open[org_id]:
                del self._open[org_id]
