"""A read that takes long is made a second time, and what comes first counts."""

import asyncio

import pytest

from oa_base.refusal import Refusal
from oa_testing.waiting import PATIENCE_S
from services.khala_gateway.sources.app.hedges import Hedges

AWAY = Refusal("unavailable", "away")
GONE = Refusal("retention_floor_breach", "pruned")


class Calls:
    """Calls that hang until they are answered; `asked_again` counts those that the hedges made."""

    def __init__(self) -> None:
        self.made: list[asyncio.Future[str]] = []
        self.changed = asyncio.Event()
        self.asked_again = 0

    async def call(self) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.made.append(answer)
        self.changed.set()
        return await answer

    def note(self) -> None:
        self.asked_again += 1

    def through(self, hedges: Hedges) -> asyncio.Task[str]:
        return asyncio.create_task(hedges.first(self.call, self.note))

    async def until(self, count: int) -> None:
        """So many calls were made."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.made) < count:
                self.changed.clear()
                await self.changed.wait()


async def test_what_is_answered_in_time_is_asked_once() -> None:
    calls = Calls()
    one = calls.through(Hedges(3_600_000, 1))
    await calls.until(1)
    calls.made[0].set_result("first")
    assert (await one, len(calls.made), calls.asked_again) == ("first", 1, 0)


async def test_of_two_that_are_asked_the_first_answer_counts_and_the_other_call_ends() -> None:
    calls = Calls()
    for quick, slow in ((1, 0), (2, 3)):
        one = calls.through(Hedges(1, 1))
        await calls.until(max(quick, slow) + 1)
        calls.made[quick].set_result("quick")
        assert await one == "quick"
        assert calls.made[slow].cancelled()
    assert calls.asked_again == 2


async def test_a_failure_waits_for_the_other_call_and_a_refusal_is_an_answer() -> None:
    calls, hedges = Calls(), Hedges(1, 1)
    one = calls.through(hedges)
    await calls.until(2)
    calls.made[0].set_exception(AWAY)
    await asyncio.sleep(0)
    calls.made[1].set_result("second")
    assert await one == "second"
    one = calls.through(hedges)
    await calls.until(4)
    calls.made[3].set_exception(GONE)
    with pytest.raises(Refusal, match="retention_floor_breach"):
        await one
    one = calls.through(hedges)
    await calls.until(6)
    for call in calls.made[4:]:
        call.set_exception(AWAY)
    with pytest.raises(Refusal, match="unavailable"):
        await one


async def test_a_first_call_that_fails_in_time_is_not_made_again() -> None:
    calls = Calls()
    one = calls.through(Hedges(3_600_000, 1))
    await calls.until(1)
    calls.made[0].set_exception(AWAY)
    with pytest.raises(Refusal, match="unavailable"):
        await one
    assert calls.asked_again == 0


async def test_so_many_are_made_twice_at_once_and_none_where_it_is_off() -> None:
    calls, later, hedges = Calls(), Calls(), Hedges(1, 1)
    first = calls.through(hedges)
    await calls.until(2)
    second = calls.through(hedges)
    await calls.until(3)
    off = calls.through(Hedges(0, 1))
    await calls.until(4)
    witness = later.through(Hedges(1, 1))
    await later.until(2)  # it began last, and its patience is over: that of the others is too
    witness.cancel()
    assert (len(calls.made), calls.asked_again) == (4, 1)
    calls.made[2].set_result("alone")
    calls.made[3].set_result("off")
    calls.made[1].set_result("hedged")
    assert [await one for one in (first, second, off)] == ["hedged", "alone", "off"]
    third = calls.through(hedges)
    await calls.until(6)
    calls.made[5].set_result("free again")
    assert await third == "free again"


async def test_who_gives_up_takes_both_calls_along() -> None:
    calls = Calls()
    one = calls.through(Hedges(1, 1))
    await calls.until(2)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    assert all(call.cancelled() for call in calls.made)
