"""Who waits for a slot gets it in turn with the others, however many of these wait."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth.identity import PersonCaller, ServiceCaller, set_caller
from oa_platform.config.parsers import Secret
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.pool import Postgres
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.tasks.fair_slots import FairSlots, for_whom
from oa_testing.postgres import Database


async def _rounds() -> None:
    """Let everybody do what can be done without anything new."""
    for _ in range(10):
        await asyncio.sleep(0)


class _Work:
    """Work of orgs that ends when it is told to."""

    def __init__(self, slots: int) -> None:
        self.slots = FairSlots(slots)
        self.began: list[str] = []
        self._end = asyncio.Semaphore(0)

    async def start(self, *orgs: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._work(org)) for org in orgs]
        await _rounds()
        return tasks

    async def _work(self, org: str) -> None:
        async with self.slots.slot(org):
            self.began.append(org)
            await self._end.acquire()

    async def end(self, count: int = 1) -> None:
        for _ in range(count):
            self._end.release()
            await _rounds()


async def test_a_quiet_org_waits_for_one_of_each_other_org_and_keeps_its_own_order() -> None:
    work = _Work(slots=1)
    tasks = await work.start(*["flood"] * 100, "quiet", "other", "quiet")
    await work.end(5)
    assert work.began == ["flood", "flood", "quiet", "other", "flood", "quiet"]
    await cancel_and_wait(*tasks)


async def test_as_many_work_as_there_are_slots_and_who_gives_up_leaves_no_trace() -> None:
    work = _Work(slots=2)
    first, second, third, fourth = await work.start("a", "b", "a", "c")
    assert work.began == ["a", "b"]
    await cancel_and_wait(third)
    await cancel_and_wait(first)
    assert work.began == ["a", "b", "c"]
    await cancel_and_wait(second, fourth)
    assert (work.slots._free, work.slots._waiting) == (2, {})


async def test_a_slot_that_comes_in_the_moment_of_giving_up_is_passed_on() -> None:
    slots = FairSlots(1)
    await slots.take("a")
    given_up, other = (asyncio.create_task(slots.take(org)) for org in "bc")
    await _rounds()
    slots.give_back()
    given_up.cancel()  # before it could notice that it has the slot
    await other
    other = asyncio.create_task(slots.take("c"))
    late = asyncio.create_task(slots.take("d"))
    await _rounds()
    other.cancel()
    slots.give_back()  # before it could leave the queue
    await late
    assert other.cancelled()
    slots.give_back()
    assert (slots._free, slots._waiting) == (1, {})


def test_callers_work_for_their_org_or_as_a_service() -> None:
    principal = Principal(PrincipalKind.USER, "usr_1", "org_1", frozenset(), "ses_1", "")
    set_caller(PersonCaller(principal, "control"))
    assert for_whom() == "org_1"
    set_caller(ServiceCaller("khala_gateway"))
    assert for_whom() == "khala_gateway"


async def test_an_org_that_asks_for_every_database_connection_lets_the_others_have_their_turns(
    empty_database: Database,
) -> None:
    settings = DatabaseSettings(url=Secret(empty_database.runtime), may_lose_commits=True, pool_min=1, pool_max=1)
    async with Postgres(settings, "test") as postgres, AsyncExitStack() as stack:
        served: list[str] = []

        async def ask(org: str) -> None:
            set_caller(PersonCaller(Principal(PrincipalKind.USER, "usr_1", org, frozenset(), "ses_1", ""), "control"))
            async with postgres.acquire():
                served.append(org)

        async with postgres.acquire():
            tasks = [asyncio.create_task(ask(org)) for org in [*["flood"] * 20, "quiet"]]
            stack.push_async_callback(cancel_and_wait, *tasks)
            await _rounds()
        await asyncio.gather(*tasks)
        assert served[:3] == ["flood", "quiet", "flood"]
        assert (postgres._slots._free, len(served)) == (1, 21)


async def test_a_connection_that_could_not_be_had_takes_no_slot(empty_database: Database) -> None:
    settings = DatabaseSettings(
        url=Secret(empty_database.runtime), may_lose_commits=True, pool_min=1, pool_max=1, acquire_timeout_s=0.05
    )
    async with Postgres(settings, "test") as postgres:
        async with postgres.acquire():
            with pytest.raises(Refusal, match="no database connection became free in time"):
                async with postgres.acquire():
                    pass
        assert (postgres._slots._free, postgres._slots._waiting) == (1, {})
