"""The watermark store: the state of each topic and how far it has been applied, persisted in one step.

A store belongs to one user, org and device (its namespace). Implementations: SQLite (`oa_client.cpython.sqlite_store`)
and memory (here); `CursorStore` keeps no state. A topic's state is its elements: the payloads of its events from
`first_seq` on, or a snapshot and the elements after it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from oa_khala.client.commands import Apply
from oa_khala.frames import Cursor

MAX_BATCH = 256
"""Maximum number of elements persisted in one transaction, by default."""


class StoreMoved(Exception):
    """An element does not continue the stored ones (another process shares the store). `cursor` is the stored one."""

    def __init__(self, topic: str, cursor: Cursor | None) -> None:
        super().__init__(f"{topic} stands at {cursor}")
        self.topic = topic
        self.cursor = cursor


@dataclass(frozen=True, slots=True)
class Element:
    """One stored element of a topic."""

    seq: int
    payload: bytes
    snapshot: bool = False


class WatermarkStore(Protocol):
    """See the module."""

    def cursor(self, topic: str) -> Cursor | None:
        """Return how far `topic` has been applied; None if nothing of it is stored."""

    def apply(self, elements: Sequence[Apply], held: Container[str] = ()) -> None:
        """Store the elements and their cursors: all of them, or none. Elements already stored stay as they are.

        `held`: topics of which something must be stored already.

        Raises StoreMoved if an element would leave a hole, or belongs to another epoch or to other content.
        """

    def drop(self, topic: str, at: Cursor | None = None) -> bool:
        """Forget the state and the cursor of `topic` together.

        `at`: keep both, and return False, if the stored cursor is another one than this.
        """

    def elements(self, topic: str, after_seq: int = 0) -> Iterator[Element]:
        """Return the stored elements of `topic` above `after_seq`, in order."""


def continues(stored: Cursor | None, element: Apply, held: Container[str]) -> bool:
    """Whether to store the element; False if it is already stored. Raises StoreMoved if it does not fit.

    Every store follows this rule. The first element of an empty topic may have any seq, because a topic whose floor
    has moved starts there. A topic that was `held` is not empty, unless another process has dropped it.
    """
    if element.snapshot:
        return True
    if stored is None:
        if element.topic in held:
            raise StoreMoved(element.topic, None)
        return True
    ahead = element.cursor.applied_seq - stored.applied_seq
    if element.cursor.epoch != stored.epoch or ahead > 1 or not _same_content(stored.chain, element, ahead):
        raise StoreMoved(element.topic, stored)
    return ahead == 1


def _same_content(stored_chain: bytes, element: Apply, ahead: int) -> bool:
    """Whether the element agrees with the stored content, as far as the chain values can tell."""
    chain = {1: element.follows, 0: element.cursor.chain}.get(ahead, b"")
    return not chain or not stored_chain or chain == stored_chain


@dataclass
class _Topic:
    cursor: Cursor
    elements: list[Element] = field(default_factory=list)


class MemoryStore:
    """A WatermarkStore that ends with the process."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    def cursor(self, topic: str) -> Cursor | None:
        """See WatermarkStore."""
        known = self._topics.get(topic)
        return known.cursor if known else None

    def apply(self, elements: Sequence[Apply], held: Container[str] = ()) -> None:
        """See WatermarkStore."""
        staged: dict[str, _Topic] = {}
        for each in elements:
            known = staged.get(each.topic) or self._topics.get(each.topic)
            if not continues(known.cursor if known else None, each, held):
                continue
            topic = staged.setdefault(each.topic, _Topic(each.cursor, list(known.elements) if known else []))
            if each.snapshot:
                topic.elements.clear()
            topic.cursor = each.cursor
            topic.elements.append(Element(each.cursor.applied_seq, each.payload, each.snapshot))
        self._topics.update(staged)

    def drop(self, topic: str, at: Cursor | None = None) -> bool:
        """See WatermarkStore."""
        if at is not None and self.cursor(topic) != at:
            return False
        self._topics.pop(topic, None)
        return True

    def elements(self, topic: str, after_seq: int = 0) -> Iterator[Element]:
        """See WatermarkStore."""
        known = self._topics.get(topic)
        return iter([each for each in known.elements if each.seq > after_seq] if known else [])


class CursorStore:
    """A WatermarkStore for a reader that takes each element once and keeps none. It holds cursors, and no state."""

    def __init__(self, cursors: Mapping[str, Cursor] | None = None) -> None:
        """`cursors`: topic -> how far it was applied before."""
        self._cursors = dict(cursors or {})

    def cursor(self, topic: str) -> Cursor | None:
        """See WatermarkStore."""
        return self._cursors.get(topic)

    def apply(self, elements: Sequence[Apply], held: Container[str] = ()) -> None:
        """See WatermarkStore."""
        staged = dict(self._cursors)
        for each in elements:
            if continues(staged.get(each.topic), each, held):
                staged[each.topic] = each.cursor
        self._cursors = staged

    def drop(self, topic: str, at: Cursor | None = None) -> bool:
        """See WatermarkStore."""
        if at is not None and self.cursor(topic) != at:
            return False
        self._cursors.pop(topic, None)
        return True

    def elements(self, topic: str, after_seq: int = 0) -> Iterator[Element]:
        """See WatermarkStore."""
        return iter(())
