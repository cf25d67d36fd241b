"""Slots: no more runs are at work than there are, who waits takes none, and who comes back goes before who is new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oa_testing.waiting import PATIENCE_S, eventually
from oa_worker.sdk.limits import WorkerLimits
from oa_worker.sdk.runs.slots import MAX_HELD, Place, SlotBook, Slots

SLOTS, MAX_WAITING = 2, 3
SOON = WorkerLimits(keep_slot_ms=0)


class Model(RuleBasedStateMachine):
    """Any order of what can happen to runs, beside what a reader of the rules would count."""

    def __init__(self) -> None:
        super().__init__()
        self.book: SlotBook[int] = SlotBook(SLOTS, MAX_WAITING)
        self.last = 0
        self.where: dict[int, str] = {}
        self.at_once: set[int] = set()

    def settle(self) -> None:
        wanted = [who for who, at in self.where.items() if at == "back"] + [
            who for who, at in self.where.items() if at == "new"
        ]
        admitted = self.book.admit()
        assert set(admitted) <= set(wanted)
        if any(self.where[who] == "new" for who in admitted):
            assert not [who for who, at in self.where.items() if at == "back" and who not in admitted]
        for who in admitted:
            self.where[who] = "work"

    def those(self, *places: str) -> list[int]:
        return [who for who, at in self.where.items() if at in places]

    @rule()
    def enters(self) -> None:
        self.last += 1
        self.book.enter(self.last)
        self.where[self.last] = "new"
        self.settle()

    @precondition(lambda self: self.those("work"))
    @rule(data=st.data())
    def waits(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.those("work")))
        given_back = self.book.give_back(who)
        assert given_back == (len(self.those("waiting", "back")) < MAX_WAITING)
        if given_back:
            self.where[who] = "waiting"
            self.at_once.discard(who)
        self.settle()

    @precondition(lambda self: self.those("waiting"))
    @rule(data=st.data())
    def comes_back(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.those("waiting")))
        self.book.come_back(who)
        self.where[who] = "back"
        self.settle()

    @precondition(lambda self: self.those("waiting", "back", "new"))
    @rule(data=st.data())
    def goes_on_at_once(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.those("waiting", "back", "new")))
        self.book.go_on_at_once(who)
        self.where[who] = "work"
        self.at_once.add(who)
        self.settle()

    @precondition(lambda self: self.where)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(sorted(self.where)))
        self.book.leave(who)
        del self.where[who]
        self.at_once.discard(who)
        self.settle()

    @invariant()
    def the_book_says_what_was_counted(self) -> None:
        book = self.book
        assert book.at_work == set(self.those("work"))
        assert book.waiting == set(self.those("waiting"))
        assert set(book.coming_back) == set(self.those("back"))
        assert set(book.new) == set(self.those("new"))

    @invariant()
    def no_more_are_at_work_than_there_are_slots_but_for_those_that_end(self) -> None:
        assert len(self.book.at_work - self.at_once) <= SLOTS

    @invariant()
    def no_slot_is_free_while_somebody_wants_one(self) -> None:
        if self.book.coming_back or self.book.new:
            assert len(self.book.at_work) >= SLOTS

    @invariant()
    def capacity_counts_who_waits(self) -> None:
        assert SLOTS <= self.book.capacity == SLOTS + len(self.book.waiting) <= SLOTS + MAX_WAITING


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(st.integers(1, MAX_HELD))
def test_a_worker_never_holds_more_than_the_contract_takes(total: int) -> None:
    book = Slots(total, WorkerLimits(max_waiting_runs=10**6)).book
    for who in range(total):
        book.enter(who)  # type: ignore[arg-type]
    book.admit()
    for who in range(total):
        book.give_back(who)  # type: ignore[arg-type]
    assert book.capacity <= MAX_HELD


async def at_work(place: Place, *parts: Callable[[], Coroutine[None, None, None]]) -> None:
    async with place:
        for part in parts:
            await part()


async def test_who_comes_back_goes_before_who_is_new_and_is_not_at_work_before() -> None:
    told: list[int] = []
    slots = Slots(1, SOON, lambda: told.append(slots.capacity))
    answer, first_ends, order = asyncio.Event(), asyncio.Event(), list[str]()
    places = [Place(slots) for _ in range(3)]

    async def waits() -> None:
        async with places[0].waiting():
            await answer.wait()
        order.append("back")

    async def works() -> None:
        order.append("new")
        await first_ends.wait()

    async def is_last() -> None:
        order.append("last")

    tasks = [asyncio.create_task(at_work(places[0], waits)), asyncio.create_task(at_work(places[1], works))]
    await eventually(lambda: order == ["new"])
    tasks.append(asyncio.create_task(at_work(places[2], is_last)))
    answer.set()
    await eventually(lambda: places[0] in slots.book.coming_back and places[2] in slots.book.new)
    assert order == ["new"]
    first_ends.set()
    await asyncio.gather(*tasks)
    assert order == ["new", "back", "last"]
    assert told == [2, 1]


async def test_a_wait_that_is_over_soon_keeps_the_slot() -> None:
    slots = Slots(1, WorkerLimits(keep_slot_ms=int(PATIENCE_S * 1000)))
    async with (place := Place(slots)), place.waiting():
        await asyncio.sleep(0)
        assert place in slots.book.at_work


async def test_beyond_the_limit_a_run_keeps_its_slot_while_it_waits() -> None:
    slots = Slots(1, WorkerLimits(keep_slot_ms=0, max_waiting_runs=1))
    over = asyncio.Event()
    places = [Place(slots) for _ in range(3)]

    def waits(place: Place) -> Callable[[], Coroutine[None, None, None]]:
        async def wait() -> None:
            async with place.waiting():
                await over.wait()

        return wait

    tasks = [asyncio.create_task(at_work(place, waits(place))) for place in places]
    await eventually(lambda: places[1] in slots.book.at_work)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert (places[1] in slots.book.at_work, places[2] in slots.book.new) == (True, True)
    over.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("when", ["waiting", "coming back", "new"])
async def test_who_is_to_end_goes_on_at_once_though_all_slots_are_taken(when: str) -> None:
    slots, answer, never = Slots(1, SOON), asyncio.Event(), asyncio.Event()
    one, other = Place(slots), Place(slots)
    seen: list[str] = []

    async def waits() -> None:
        try:
            async with one.waiting():
                await answer.wait()
        except asyncio.CancelledError:
            seen.append("canceled")
            raise

    if when == "new":
        blocking = asyncio.create_task(at_work(other, never.wait))  # type: ignore[arg-type]
        await eventually(lambda: other in slots.book.at_work)
        ending = asyncio.create_task(at_work(one, waits))
        await eventually(lambda: one in slots.book.new)
    else:
        ending = asyncio.create_task(at_work(one, waits))
        await eventually(lambda: one in slots.book.waiting)
        blocking = asyncio.create_task(at_work(other, never.wait))  # type: ignore[arg-type]
        await eventually(lambda: other in slots.book.at_work)
    if when == "coming back":
        answer.set()
        await eventually(lambda: one in slots.book.coming_back)
    one.ends()
    if when == "new":
        await eventually(lambda: one in slots.book.at_work)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert one not in slots.book.at_work
    blocking.cancel()
    await asyncio.gather(blocking, return_exceptions=True)
    assert not slots.book.at_work


async def test_a_time_that_is_over_while_it_waits_does_not_let_it_work_without_a_slot() -> None:
    slots, ends = Slots(1, SOON), asyncio.Event()
    one, other = Place(slots), Place(slots)
    went_on: list[bool] = []
    time = asyncio.timeout(None)

    async def waits() -> None:
        with pytest.raises(TimeoutError):
            async with time, one.waiting():
                await asyncio.Event().wait()
        went_on.append(other in slots.book.at_work)

    tasks = [asyncio.create_task(at_work(one, waits))]
    await eventually(lambda: one in slots.book.waiting)
    tasks.append(asyncio.create_task(at_work(other, ends.wait)))  # type: ignore[arg-type]
    await eventually(lambda: other in slots.book.at_work)
    time.reschedule(0)
    await eventually(lambda: one in slots.book.coming_back)
    assert went_on == []
    ends.set()
    await asyncio.gather(*tasks)
    assert went_on == [False]
