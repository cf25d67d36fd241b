"""The queue of the sequencer: order within a partition, bounds of a turn, and when a second one begins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_runlog.commands import Append
from oa_runlog.events import TextDelta, TextStream
from services.runtime.app.command_queue import CommandQueue, Turn, Waiter
from services.runtime.app.limits import SequencerLimits
from services.runtime.domain.batch import Applied


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """What futures need to be made."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def waiter(loop: asyncio.AbstractEventLoop, partition: int, number: int = 0, size: int = 100) -> Waiter:
    answer: asyncio.Future[Applied] = loop.create_future()
    text = TextDelta(TextStream.STDOUT, b"x" * size)
    command = Append.of(f"run{partition}", "org_1", "wrk_1", 1, f"k{number}", [text])
    return Waiter(command, partition, answer, 0.0)


def taken(turn: Turn | None) -> list[int]:
    """Partitions of what was taken."""
    return [one.partition for one in turn.waiters] if turn else []


def queue_of(loop: asyncio.AbstractEventLoop, *partitions: int, **limits: int) -> CommandQueue:
    queue = CommandQueue(SequencerLimits(**limits))
    for number, partition in enumerate(partitions):
        queue.put(waiter(loop, partition, number))
    return queue


def test_a_turn_takes_all_that_waits_up_to_its_bounds(loop: asyncio.AbstractEventLoop) -> None:
    assert taken(queue_of(loop, 1, 2, 1).take()) == [1, 2, 1]
    assert taken(queue_of(loop, 1, 2, 1, batch_commands=2).take()) == [1, 2]
    assert taken(queue_of(loop, 1, 2, 1, batch_bytes=250).take()) == [1, 2]
    assert taken(queue_of(loop, 1, batch_bytes=10).take()) == [1], "one that is too large by itself goes alone"


def test_a_second_turn_begins_when_enough_waits_on_other_partitions(loop: asyncio.AbstractEventLoop) -> None:
    size = waiter(loop, 0).size
    queue = queue_of(loop, 1, beside_bytes=3 * size)
    first = queue.take()
    assert first is not None
    for partition in (2, 1):
        queue.put(waiter(loop, partition))
        assert (queue.has_turn, queue.take()) == (False, None)
    queue.put(waiter(loop, 3))
    assert taken(queue.take()) == [2, 3], "partition 1 is under way"
    assert len(queue) == 1
    assert queue.take() is None
    queue.done(first)
    queue.put(waiter(loop, 4, size=3 * size))
    assert taken(queue.take()) == [1, 4]


def test_the_queue_knows_when_it_is_full_and_can_be_emptied(loop: asyncio.AbstractEventLoop) -> None:
    assert not queue_of(loop, 1, 2, queue_commands=3).is_full
    queue = queue_of(loop, 1, 2, 3, queue_commands=3)
    assert queue.is_full
    assert [one.partition for one in queue.take_all()] == [1, 2, 3]
    assert (len(queue), queue.has_turn, queue.take()) == (0, False, None)


@given(data=st.data())
def test_each_partition_is_in_one_turn_at_a_time_and_in_order(
    loop: asyncio.AbstractEventLoop, data: st.DataObject
) -> None:
    queue = CommandQueue(SequencerLimits(batch_commands=data.draw(st.integers(1, 5)), beside_bytes=0))
    numbers, done, turns = 0, dict.fromkeys(range(4), -1), list[Turn]()
    for _ in range(data.draw(st.integers(1, 60))):
        what = data.draw(st.sampled_from(("put", "take", "done")))
        if what == "put":
            queue.put(waiter(loop, data.draw(st.integers(0, 3)), numbers))
            numbers += 1
        elif what == "take" and (turn := queue.take()):
            assert all(turn.partitions.isdisjoint(other.partitions) for other in turns)
            for one in turn.waiters:
                assert isinstance(one.command, Append)
                number = int(one.command.idempotency_key[1:])
                assert number > done[one.partition]
                done[one.partition] = number
            turns.append(turn)
        elif what == "done" and turns:
            queue.done(turns.pop(data.draw(st.integers(0, len(turns) - 1))))
    for turn in turns:
        queue.done(turn)
    while turn := queue.take():  # nothing is stuck
        queue.done(turn)
    assert len(queue) == 0
