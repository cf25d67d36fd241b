"""A log that gets another past while it is read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from oa_base.refusal import Refusal
from oa_khala.topics import Topic
from oa_topics.history import History, Snapshot
from oa_topics.store import StateAt, TopicLimits
from oa_topics.tests.memory_topics import MemoryTopics

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"


class Replaced(MemoryTopics):
    """Has another past by the time that a page is read."""

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        self.lineage, self.events[str(topic)] = "e2", [b"new"] * 3
        return await super().page(topic, after_seq, max_events, max_bytes)

    async def snapshot(self, topic: Topic, max_bytes: int) -> StateAt | None:
        found = StateAt(len(self.events[str(topic)]), self.lineage.encode())
        self.lineage = "e2"
        return found


async def test_a_page_of_another_past_is_not_served_under_the_name_of_the_one_before() -> None:
    history = History(Replaced({T: [b"old"] * 3}), TopicLimits())
    with pytest.raises(Refusal) as caught:
        await history.replay(T, "e1", 1, 0, 0)
    assert caught.value.reason == "epoch_mismatch"
    assert caught.value.metadata["epoch"] == "e2"
    assert len((await history.replay(T, "e2", 1, 0, 0)).frames) == 2


async def test_a_snapshot_of_another_past_is_not_served_either() -> None:
    history = History(Replaced({T: [b"old"] * 3}), TopicLimits())
    with pytest.raises(Refusal, match="unavailable"):
        await history.snapshot(T)
    found = await history.snapshot(T)
    assert found == Snapshot("e2", StateAt(3, b"e2"))


async def test_a_page_ends_before_an_event_that_is_not_there_and_the_next_one_says_so() -> None:
    history = History(MemoryTopics({T: [b"x"] * 5}, lost=3), TopicLimits())
    assert len((await history.replay(T, "e1", 0, 0, 0)).frames) == 2
    with pytest.raises(Refusal, match="has no 3"):
        await history.replay(T, "e1", 2, 0, 0)
    page = await history.replay(T, "e1", 3, 0, 0)
    assert (page.first_seq, len(page.frames)) == (4, 2)


async def test_of_a_topic_without_a_snapshot_none_is_found() -> None:
    history = History(MemoryTopics({T: [b"x"]}), TopicLimits())
    with pytest.raises(Refusal, match="not_found"):
        await history.snapshot(T)
    with pytest.raises(Refusal, match="invalid_topic"):
        await history.snapshot("nonsense")
