"""The queue of the sequencer: order within a partition, bounds of a batch, and when a second one begins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_runlog.authority.commands import Append
from oa_runlog.events import TextDelta, TextStream
from services.runtime.log.app.command_queue import CommandQueue
from services.runtime.log.app.pending import PendingBatch, PendingCommand
from services.runtime.log.domain.batch import Applied
from services.runtime.log.limits import SequencerLimits


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """What futures need to be made."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def pending(loop: asyncio.AbstractEventLoop, partition: int, number: int = 0, size: int = 100) -> PendingCommand:
    answer: asyncio.Future[Applied] = loop.create_future()
    text = TextDelta(TextStream.STDOUT, b"x" * size)
    command = Append.of(f"run{partition}", "org_1", "wrk_1", 1, f"k{number}", [text])
    return PendingCommand(command, partition, answer)


def taken(batch: PendingBatch | None) -> list[int]:
    """Partitions of what was taken."""
    return [one.partition for one in batch.commands] if batch else []


def queue_of(loop: asyncio.AbstractEventLoop, *partitions: int, **limits: int) -> CommandQueue:
    queue = CommandQueue(SequencerLimits(**limits))
    for number, partition in enumerate(partitions):
        queue.put(pending(loop, partition, number))
    return queue


def test_a_batch_takes_all_that_waits_up_to_its_bounds(loop: asyncio.AbstractEventLoop) -> None:
    assert taken(queue_of(loop, 1, 2, 1).take()) == [1, 2, 1]
    assert taken(queue_of(loop, 1, 2, 1, batch_commands=2).take()) == [1, 2]
    assert taken(queue_of(loop, 1, 2, 1, batch_bytes=250).take()) == [1, 2]
    assert taken(queue_of(loop, 1, batch_bytes=10).take()) == [1], "one that is too large by itself goes alone"


def test_a_second_batch_begins_when_enough_waits_on_other_partitions(loop: asyncio.AbstractEventLoop) -> None:
    size = pending(loop, 0).size
    queue = queue_of(loop, 1, concurrent_batch_min_bytes=3 * size)
    first = queue.take()
    assert first is not None
    for partition in (2, 1):
        queue.put(pending(loop, partition))
        assert (queue.is_due, queue.take()) == (False, None)
    queue.put(pending(loop, 3))
    assert taken(queue.take()) == [2, 3], "partition 1 is under way"
    assert len(queue) == 1
    assert queue.take() is None
    queue.done(first)
    queue.put(pending(loop, 4, size=3 * size))
    assert taken(queue.take()) == [1, 4]


def test_the_queue_knows_when_it_is_full_and_can_be_emptied(loop: asyncio.AbstractEventLoop) -> None:
    assert queue_of(loop, 1, 2, queue_commands=3).has_room("org_1")
    queue = queue_of(loop, 1, 2, 3, queue_commands=3)
    assert not queue.has_room("org_2")
    assert [one.partition for one in queue.take_free()] == [1, 2, 3]
    assert (len(queue), queue.is_due, queue.take()) == (0, False, None)


def test_what_waits_for_a_busy_partition_stays_when_the_rest_is_taken_away(loop: asyncio.AbstractEventLoop) -> None:
    queue = queue_of(loop, 1, 2, concurrent_batch_min_bytes=pending(loop, 0).size)
    batch = queue.take()
    assert batch is not None
    for partition in (2, 3, 1, 3):
        queue.put(pending(loop, partition))
    assert [one.partition for one in queue.take_free()] == [3, 3]
    assert (len(queue), queue.take()) == (2, None)
    queue.done(batch)
    assert taken(queue.take()) == [2, 1]


def test_what_is_given_back_comes_first(loop: asyncio.AbstractEventLoop) -> None:
    queue = queue_of(loop, 1, 2, batch_commands=2)
    batch = queue.take()
    assert batch is not None
    queue.put(pending(loop, 1))
    queue.give_back(batch)
    again = queue.take()
    assert again == batch
    queue.done(again)
    assert taken(queue.take()) == [1]
    assert not queue.is_due


@given(data=st.data())
def test_each_partition_is_in_one_batch_at_a_time_and_in_order(
    loop: asyncio.AbstractEventLoop, data: st.DataObject
) -> None:
    queue = CommandQueue(SequencerLimits(batch_commands=data.draw(st.integers(1, 5)), concurrent_batch_min_bytes=0))
    numbers, done, batches = 0, dict.fromkeys(range(4), -1), list[PendingBatch]()
    for _ in range(data.draw(st.integers(1, 60))):
        what = data.draw(st.sampled_from(("put", "take", "done")))
        if what == "put":
            queue.put(pending(loop, data.draw(st.integers(0, 3)), numbers))
            numbers += 1
        elif what == "take" and (batch := queue.take()):
            assert all(batch.partitions.isdisjoint(other.partitions) for other in batches)
            for one in batch.commands:
                assert isinstance(one.command, Append)
                number = int(one.command.idempotency_key[1:])
                assert number > done[one.partition]
                done[one.partition] = number
            batches.append(batch)
        elif what == "done" and batches:
            queue.done(batches.pop(data.draw(st.integers(0, len(batches) - 1))))
    for batch in batches:
        queue.done(batch)
    while batch := queue.take():  # nothing is stuck
        queue.done(batch)
    assert len(queue) == 0


def test_an_org_that_fills_the_queue_leaves_room_for_others_until_its_commands_are_taken(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = queue_of(loop, *[1] * 80, queue_commands=90, batch_commands=10)
    assert (queue.has_room("org_1"), queue.has_room("org_2"), queue.has_room("")) == (False, True, True)
    batch = queue.take()
    assert batch is not None
    assert queue.has_room("org_1")
    queue.give_back(batch)
    assert not queue.has_room("org_1")
    queue.take_free()
    assert queue.has_room("org_1")
    assert len(queue._shares) == len(queue._bytes) == len(queue) == 0


def test_few_commands_with_many_bytes_fill_the_queue_and_one_org_can_not(loop: asyncio.AbstractEventLoop) -> None:
    size = pending(loop, 1).size
    queue = queue_of(loop, *[1] * 80, queue_bytes=90 * size, batch_bytes=10 * size)
    assert (queue.has_room("org_1"), queue.has_room("org_2"), queue.has_room("")) == (False, True, True)
    batch = queue.take()
    assert batch is not None
    assert queue.has_room("org_1")
    queue.give_back(batch)
    queue.put(pending(loop, 1, size=10 * size))
    assert (queue.has_room("org_2"), queue.has_room("")) == (False, False)
    queue.take_free()
    assert queue.has_room("org_1")
    assert len(queue._shares) == len(queue._bytes) == len(queue) == 0
