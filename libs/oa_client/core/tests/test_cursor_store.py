"""A reader that keeps nothing has the cursors of what it took, by the rule of every store."""

from __future__ import annotations

import pytest

from oa_client.core.store import CursorStore, StoreMoved
from oa_khala.client.commands import Apply
from oa_khala.frames import Cursor

TOPIC, OTHER = "run:run_01JD8V0000000000000000000A:events", "run:run_01JD8V0000000000000000000B:events"


def event(seq: int, topic: str = TOPIC) -> Apply:
    return Apply(topic, Cursor("e1", seq), b"event", 1)


def test_cursors_move_and_nothing_is_kept() -> None:
    store = CursorStore()
    store.apply([event(1), event(2), event(2), event(1, OTHER)])
    assert (store.cursor(TOPIC), store.cursor(OTHER)) == (Cursor("e1", 2), Cursor("e1", 1))
    assert list(store.elements(TOPIC)) == []
    store.drop(TOPIC)
    assert (store.cursor(TOPIC), store.cursor(OTHER)) == (None, Cursor("e1", 1))


def test_a_hole_spoils_its_whole_batch() -> None:
    store = CursorStore()
    store.apply([event(1)])
    with pytest.raises(StoreMoved):
        store.apply([event(2), event(4)])
    assert store.cursor(TOPIC) == Cursor("e1", 1)
