"""The tail has no hole, whatever is lost, doubled or late of what it is told; and it remembers only so much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_platform.tests.traces import collected, current_trace_id, span
from oa_testing.waiting import PATIENCE_S, eventually
from services.runtime.authority.domain import Head
from services.runtime.log.app.tail import MAX_TRACED, Tail
from services.runtime.log.tests.followed import LIMITS, FakeLog, behind, entry, following


async def until(tail: Tail, position: int) -> None:
    async with asyncio.timeout(60):
        while tail.heads()[0].position < position:
            await asyncio.sleep(0.001)


async def test_own_commits_are_followed_without_a_read() -> None:
    log = FakeLog()
    async with following(log) as (tail, heard):
        tail.publish(log.commit(3))
        tail.publish(log.commit(2))
        assert heard == [1, 2, 3, 4, 5]
        assert log.reads == 0


async def test_it_begins_where_the_log_stands() -> None:
    log = FakeLog()
    log.commit(7)
    async with following(log) as (tail, heard):
        tail.publish(log.commit(1))
        assert (tail.heads(), heard) == ({0: Head(8, b"")}, [8])


async def test_the_commits_of_others_are_read_up_to_where_word_says() -> None:
    log = FakeLog()
    async with following(log) as (tail, heard):
        log.commit(12)
        tail.hint(0, 12)
        await until(tail, 12)
        assert heard == list(range(1, 13))
        assert log.reads == 3, "pages of 5"


@pytest.mark.parametrize("position", [13, 2**63 - 1])
async def test_a_position_that_the_log_does_not_have_is_forgotten(position: int) -> None:
    log = FakeLog()
    async with following(log) as (tail, heard):
        log.commit(12)
        tail.hint(0, position)
        await until(tail, 12)
        await eventually(lambda: behind() == 0)
        reads = log.reads
        tail.publish(log.commit(1))
        log.commit(1)
        tail.hint(0, 14)
        await until(tail, 14)
        assert heard == list(range(1, 15))
        assert log.reads == reads + 1, "it reads nothing in vain"


async def test_it_knows_the_newest_traced_commits_of_its_entries() -> None:
    log = FakeLog()
    async with following(log) as (tail, _):
        tail.publish(log.commit(2))
        with collected():
            for _ in range(MAX_TRACED + 1):
                with span("commit"):
                    tail.publish(log.commit(2))
        tail.publish(log.commit(2))
        head = tail.heads()[0].position
    assert tail.traced(0, 0, 4) == "", "more of them have come since"
    first = tail.traced(0, 0, head)
    assert first.startswith("00-")
    assert tail.traced(0, 4, 5) == "", "the commit ends with the next entry"
    assert tail.traced(0, 5, 6) == first
    assert tail.traced(0, 6, head) not in ("", first)
    assert tail.traced(0, head - 2, head) == "", "its commit was not traced"


async def test_what_is_read_has_the_trace_of_the_commit_that_word_came_of() -> None:
    log, traces = FakeLog(), list[str]()
    with collected() as spans:
        async with following(log) as (tail, heard):
            tail.listen(lambda _: traces.append(current_trace_id()))
            log.commit(1)
            tail.hint(0, 1)
            await until(tail, 1)
            log.commit(2)
            tail.hint(0, 2)  # a look at the heads, before word of it comes
            for position, letter in ((2, "a"), (3, "b")):  # the second one comes before the first has been read
                tail.hint(0, position, f"00-{letter * 32}-{'c' * 16}-01")
            await until(tail, 3)
        assert [dict(one.attributes or {}) for one in spans.get_finished_spans()] == [{"oa.entries": 2}]
    assert (heard, traces) == ([1, 2, 3], ["", "a" * 32])


async def test_an_own_commit_after_one_of_another_replica_waits_for_it() -> None:
    log = FakeLog()
    async with following(log) as (tail, heard):
        log.commit(2)
        tail.publish(log.commit(1))
        assert (heard, behind()) == ([], 3)
        await until(tail, 3)
        assert (heard, behind()) == ([1, 2, 3], 0)


async def test_word_of_a_commit_that_is_no_news_costs_nothing() -> None:
    log = FakeLog()
    async with following(log) as (tail, heard):
        tail.publish(log.commit(3))
        tail.hint(0, 2)
        tail.hint(0, 3)
        tail.hint(99, 5)
        await asyncio.sleep(0.02)
        assert (heard, log.reads) == ([1, 2, 3], 0)


async def test_a_read_that_fails_is_made_again() -> None:
    log = FakeLog()
    log.broken = 3
    async with following(log) as (tail, heard):
        log.commit(2)
        tail.hint(0, 2)
        await until(tail, 2)
        assert (heard, log.reads) == ([1, 2], 4)


@pytest.mark.parametrize("damage", [Refusal("archive_damaged", "damaged"), ValueError("a defect")], ids=repr)
async def test_a_partition_that_can_not_be_read_holds_up_no_other(damage: Exception) -> None:
    log = FakeLog(2)
    log.damage = damage
    async with following(log) as (tail, heard):
        log.damaged = {0}
        for partition in (0, 1):
            log.commit(3, partition)
            tail.hint(partition, 3)
        async with asyncio.timeout(60):
            while tail.heads()[1].position < 3:
                await asyncio.sleep(0.001)
        assert (tail.heads()[0].position, behind() > 0) == (0, True)
        log.damaged = set()
        await until(tail, 3)
        assert heard == [1, 2, 3, 1, 2, 3]


async def test_recent_pages_come_from_memory_and_old_ones_from_the_table() -> None:
    log = FakeLog()
    async with following(log) as (tail, _):
        for _ in range(40):
            tail.publish(log.commit(1))
        assert await tail.read(0, 37) == [entry(position).data for position in (38, 39, 40)]
        assert await tail.read(0, 33) == [entry(position).data for position in range(34, 39)], "a page of 5"
        assert log.reads == 0
        assert await tail.read(0, 0) == [entry(position).data for position in range(1, 6)]
        assert log.reads == 1
        assert await tail.read(0, 40) == []
        assert await tail.read(0, 41) == [], "the table may be ahead of what is followed"


async def test_memory_is_bounded_in_entries_and_bytes() -> None:
    log = FakeLog()
    async with following(log) as (tail, _):
        partition = tail._partitions[0]
        for _ in range(100):
            tail.publish(log.commit(1))
        assert partition.head + 1 - partition.ring_start == LIMITS.ring_entries
        large = [entry(101 + number, size=600) for number in range(6)]
        log.table[0].extend(large)
        for one in large:
            tail.publish({0: [one]})
            assert partition.ring_bytes <= LIMITS.ring_bytes
        assert partition.head + 1 - partition.ring_start == 1


async def test_a_bell_rings_for_whoever_waits_and_says_for_which_partition() -> None:
    log = FakeLog(2)
    async with following(log) as (tail, _):
        with tail.bell() as bell:
            assert bell.moved() == {0, 1}, "what stands there already was never read"
            waiting = asyncio.create_task(bell.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
            tail.publish(log.commit(1, partition=1))
            async with asyncio.timeout(PATIENCE_S):
                await waiting
            assert bell.moved() == {1}
            assert bell.moved() == set()
            tail.restart(await log.heads())
            assert bell.moved() == {0, 1}
        assert not tail._bells


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("own"), st.integers(1, 4)),
        st.tuples(st.just("foreign"), st.integers(1, 4)),
        st.tuples(st.just("silent"), st.integers(1, 4)),
        st.tuples(st.just("repeat"), st.integers(1, 30)),
        st.tuples(st.just("breathe"), st.integers(0, 3)),
    ),
    max_size=25,
)


@given(OPERATIONS)
@settings(deadline=None, max_examples=60)
def test_nothing_is_missed_doubled_or_swapped(operations: Sequence[tuple[str, int]]) -> None:
    """Own commits, others' with and without word, words said twice, and turns of the loop in between, in any order."""

    async def scenario() -> None:
        log = FakeLog()
        async with following(log) as (tail, heard):
            for what, number in operations:
                if what == "own":
                    tail.publish(log.commit(number))
                elif what in ("foreign", "silent"):
                    log.commit(number)
                    if what == "foreign":
                        tail.hint(0, len(log.table[0]))
                elif what == "repeat":
                    tail.hint(0, min(number, len(log.table[0])))
                else:
                    for _ in range(number):
                        await asyncio.sleep(0)
                assert heard == list(range(1, len(heard) + 1))
            tail.hint(0, len(log.table[0]))
            await until(tail, len(log.table[0]))
            assert heard == list(range(1, len(log.table[0]) + 1))

    asyncio.run(scenario())


async def test_a_listener_that_fails_holds_up_no_other_and_not_the_tail() -> None:
    def broken(_records: object) -> None:
        raise KeyError("a defect")

    log, heard = FakeLog(), list[int]()
    async with following(log) as (tail, first):
        tail.listen(broken)
        tail.listen(lambda records: heard.extend(record.position for record in records))
        tail.publish(log.commit(2))
        log.commit(1)
        tail.hint(0, 3)
        await until(tail, 3)
        assert (first, heard) == ([1, 2, 3], [1, 2, 3])
