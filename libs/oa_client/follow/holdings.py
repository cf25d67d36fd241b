"""What one subscription holds in its store, which other processes may share."""

from __future__ import annotations

from collections.abc import Sequence

from oa_client.core.store import WatermarkStore
from oa_khala.client.commands import Apply
from oa_khala.frames import Cursor


class Holdings:
    """The topics that a subscription follows, each with the cursor that the subscription last found or put there."""

    def __init__(self, store: WatermarkStore) -> None:
        self._store = store
        self._cursors: dict[str, Cursor | None] = {}

    def follow(self, topic: str) -> Cursor | None:
        """Begin with the stored cursor, and return that. A topic that is followed already goes on as it is."""
        cursor = self._store.cursor(topic)
        self._cursors.setdefault(topic, cursor)
        return cursor

    def unfollow(self, topic: str) -> None:
        """End; what is stored stays."""
        self._cursors.pop(topic, None)

    def cursor(self, topic: str) -> Cursor | None:
        """The cursor that the subscription last found or put there; None if there was nothing."""
        return self._cursors.get(topic)

    def put(self, elements: Sequence[Apply]) -> None:
        """Store all elements. Raises StoreMoved, and stores none, if another process dropped or replaced a topic."""
        self._store.apply(elements, held={each.topic for each in elements if self.cursor(each.topic)})
        self._cursors |= {each.topic: each.cursor for each in elements}

    def drop(self, topic: str) -> bool:
        """Drop the topic. Return False, and drop nothing, if another process has already stored something else."""
        ours = self.cursor(topic)
        is_gone = self._store.drop(topic, at=ours) if ours else self._store.cursor(topic) is None
        if is_gone:
            self._cursors[topic] = None
        return is_gone

    def found(self, topic: str) -> Cursor | None:
        """Continue from what is really stored, and return its cursor."""
        cursor = self._cursors[topic] = self._store.cursor(topic)
        return cursor
