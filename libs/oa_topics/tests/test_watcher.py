"""The watcher, step by step, and against whatever may come in whatever order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oa_topics.tests.memory_topics import described
from oa_topics.watcher import Frames, Head, Origin, Watcher

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
U = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6Y:events"


def made(pending_bytes: int = 100, max_topics: int = 10) -> Watcher:
    return Watcher(pending_bytes, max_topics, lambda: None)


def carried(head: int = 0, pending_bytes: int = 100) -> Watcher:
    """A watcher that carries T, and has said so."""
    watcher = made(pending_bytes)
    watcher.add(T)
    assert watcher.to_describe() == [T]
    watcher.stands(described(T, head))
    assert watcher.take().watched == [described(T, head)]
    return watcher


def test_frames_wait_until_it_is_said_where_their_topic_stands() -> None:
    watcher = made()
    watcher.add(T)
    watcher.offer(T, 1, [b"1"])
    assert not watcher.take()
    assert watcher.to_describe() == [T]
    watcher.offer(T, 2, [b"2", b"3"])
    assert not watcher.take()
    watcher.stands(described(T, 2))
    answer = watcher.take()
    assert answer.watched == [described(T, 2)]
    assert answer.batches == [Frames(T, "e1", 3, [b"3"])], "what the head covers is not sent"


def test_frames_that_find_no_room_are_made_good_by_where_the_topic_stands_then() -> None:
    watcher = carried(pending_bytes=3)
    watcher.offer(T, 1, [b"11"])
    watcher.offer(T, 2, [b"22"])
    watcher.offer(T, 3, [b"3"])
    assert watcher.dropped == 1, "what follows on a dropped frame isn't kept either"
    assert not watcher.take()
    assert watcher.to_describe() == [T]
    watcher.offer(T, 4, [b"4"])
    watcher.stands(described(T, 3))
    answer = watcher.take()
    assert answer.watched == [described(T, 3)]
    assert answer.batches == [Frames(T, "e1", 4, [b"4"])]


def test_frames_say_where_the_first_of_them_come_from_and_the_first_trace() -> None:
    watcher = made()
    watcher.add(T)
    watcher.offer(T, 1, [b"1", b"2"], Origin(1, "covered"))
    watcher.to_describe()
    watcher.stands(described(T, 2))
    watcher.offer(T, 3, [b"3"], Origin(3))
    watcher.offer(T, 4, [b"4"], Origin(4, "trace"))
    watcher.offer(T, 5, [b"5"], Origin(5, "later"))
    assert watcher.take().batches == [Frames(T, "e1", 3, [b"3", b"4", b"5"], Origin(3, "trace"))]
    watcher.offer(T, 6, [b"6"])
    watcher.offer(T, 7, [b"7"], Origin(7))
    assert watcher.take().batches == [Frames(T, "e1", 6, [b"6", b"7"], Origin(7))]
    watcher.offer(T, 8, [b"8"])
    assert watcher.take().batches == [Frames(T, "e1", 8, [b"8"])]


def test_frames_are_left_to_where_they_are_published_only_once_it_is_said_where_their_topic_stands() -> None:
    watcher = made()
    watcher.take_by_subject(True)
    watcher.add(T)
    assert not watcher.takes_published(T)
    watcher.offer(T, 1, [b"1"])
    watcher.to_describe()
    assert not watcher.takes_published(T)
    watcher.stands(described(T, 0))
    assert watcher.takes_published(T)
    assert watcher.take().batches == [Frames(T, "e1", 1, [b"1"])]
    watcher.add(T)
    assert not watcher.takes_published(T)
    watcher.tell_head(T, Head("e1", 1))
    assert not watcher.take(), "where it stands is said anyway"


def test_frames_dropped_while_it_is_read_where_the_topic_stands_have_it_read_again() -> None:
    watcher = made(pending_bytes=3)
    watcher.add(T)
    watcher.to_describe()
    watcher.offer(T, 1, [b"11"])
    watcher.offer(T, 2, [b"22"])
    watcher.stands(described(T, 0))
    assert not watcher.take()
    assert watcher.to_describe() == [T]
    watcher.stands(described(T, 2))
    assert watcher.take().watched == [described(T, 2)]


def test_a_batch_on_its_own_is_taken_however_large() -> None:
    watcher = carried(pending_bytes=3)
    watcher.offer(T, 1, [b"1" * 50, b"2" * 50])
    assert watcher.take().batches == [Frames(T, "e1", 1, [b"1" * 50, b"2" * 50])]


def test_a_topic_that_was_overrun_and_removed_is_not_said_again() -> None:
    watcher = carried(pending_bytes=3)
    watcher.offer(T, 1, [b"11"])
    watcher.offer(T, 2, [b"22"])
    watcher.remove(T)
    assert watcher.to_describe() == []
    assert not watcher.take()
    assert T not in watcher


def test_what_is_said_of_a_topic_that_was_removed_or_added_anew_meanwhile_is_not_passed_on() -> None:
    watcher = made()
    watcher.add(T)
    watcher.to_describe()
    watcher.remove(T)
    watcher.add(T)
    watcher.stands(described(T, 5))
    assert not watcher.take()
    assert watcher.to_describe() == [T]


def test_after_another_past_nothing_of_the_old_one_is_sent() -> None:
    watcher = carried()
    watcher.add(U)
    watcher.to_describe()
    watcher.offer(T, 1, [b"old"])
    watcher.restart()
    watcher.stands(described(U, 7))
    assert not watcher.take()
    assert watcher.to_describe() == [T, U]
    for topic in (T, U):
        watcher.stands(described(topic, 0, "e2"))
    watcher.offer(T, 1, [b"new"])
    assert watcher.take().batches == [Frames(T, "e2", 1, [b"new"])]


def test_too_many_topics_are_refused_one_by_one() -> None:
    watcher = made(max_topics=1)
    watcher.add(T)
    watcher.add(U)
    watcher.add(T)
    ((topic, refusal),) = watcher.take().refused
    assert (topic, refusal.reason) == (U, "too_many_topics")


class AnyOrder(RuleBasedStateMachine):
    """What a stream does in one turn: ask where topics stand, hear it, take what is to be sent. Commits, additions and
    removals come in between. Frames never overtake their `watched`; when the stream comes to rest, nothing is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.woken = False
        self.watcher = Watcher(8, 2, self.wake)
        self.head = 0
        self.in_turn = False
        self.read: int | None = None
        self.watched = False
        self.stands = 0

    def wake(self) -> None:
        self.woken = True

    @initialize()
    def add_it(self) -> None:
        self.watcher.add(T)

    @rule()
    def add(self) -> None:
        self.watcher.add(T)

    @rule()
    def remove(self) -> None:
        self.watcher.remove(T)
        self.watched, self.stands = False, 0

    @rule(count=st.integers(1, 4), size=st.integers(1, 5))
    def commit(self, count: int, size: int) -> None:
        self.watcher.offer(T, self.head + 1, [b"x" * size] * count)
        self.head += count

    @precondition(lambda self: self.woken and not self.in_turn)
    @rule()
    def begin_a_turn(self) -> None:
        self.woken, self.in_turn = False, True
        self.read = self.head if self.watcher.to_describe() else None

    @precondition(lambda self: self.in_turn)
    @rule()
    def end_the_turn(self) -> None:
        self.in_turn = False
        if self.read is not None:
            self.watcher.stands(described(T, self.read))
        answer = self.watcher.take()
        for one in answer.watched:
            self.watched, self.stands = True, max(self.stands, one.state.head)
        for batch in answer.batches:
            assert self.watched, "frames overtook their watched"
            assert batch.first_seq <= self.stands + 1, "frames are missing, and nothing has said so"
            self.stands = max(self.stands, batch.first_seq + len(batch.frames) - 1)

    @rule()
    def come_to_rest(self) -> None:
        while self.woken or self.in_turn:
            if not self.in_turn:
                self.begin_a_turn()
            self.end_the_turn()
        if T in self.watcher:
            assert (self.watched, self.stands) == (True, self.head)

    @invariant()
    def what_waits_is_bounded(self) -> None:
        assert self.watcher._pending_bytes <= 8 + 4 * 5
        assert self.watcher._pending_bytes >= 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
