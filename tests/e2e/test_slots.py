"""One slot is enough: who waits for children or people gives it to others, and takes it again before going on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from oa_testing.stack import StackUnderTest
from openagents import Client, Run, RunHandle, Worker, events
from tests.e2e.callers import Caller, caller_of
from tests.e2e.world import RUN_TIMEOUT_S

MANY = 100


class AtWork:
    """How many functions are at work, and the most that were."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """One that works within the block."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1


def agents_of(worker: Worker, at_work: AtWork) -> None:
    """Agents that work a little before and after they wait."""

    async def work() -> None:
        with at_work.one():
            await asyncio.sleep(0.01)

    @worker.agent("nested", input=int, output=int)
    async def nested(run: Run[int]) -> int:
        await work()
        deeper = [await run.start_child("nested", run.input - 1) for _ in range(2)] if run.input else []
        results = [await child.result(int) for child in deeper]
        await work()
        return 1 + sum(results)

    @worker.agent("asks", input=int, output=bool)
    async def asks(run: Run[int]) -> bool:
        await work()
        approved = await run.approve("Go on?")
        await work()
        return approved

    @worker.agent("works", input=int, output=int)
    async def works(run: Run[int]) -> int:
        await work()
        return run.input

    @worker.agent("gathers", input=int, output=int)
    async def gathers(run: Run[int]) -> int:
        children = [await run.start_child("works", number) for number in range(run.input)]
        async with run.waiting():
            results = await asyncio.gather(*(child.result(int) for child in children))
        await work()
        return sum(results)


@asynccontextmanager
async def working(caller: Caller) -> AsyncIterator[AtWork]:
    """A worker with one slot."""
    worker, at_work = Worker.from_env(slots=1, env=caller.env), AtWork()
    agents_of(worker, at_work)
    serving = asyncio.create_task(worker.serve())
    try:
        yield at_work
    finally:
        worker.drain()
        await serving


async def test_parents_children_and_theirs_end_on_one_slot(stack: StackUnderTest, scratch: Path) -> None:
    async with (
        caller_of(stack, scratch) as caller,
        Client.from_env(caller.env) as client,
        asyncio.timeout(RUN_TIMEOUT_S),
        working(caller) as at_work,
    ):
        runs = [await client.start("nested", 2) for _ in range(3)]
        assert [await run.output(int) for run in runs] == [7, 7, 7]
        gathering = await client.start("gathers", 4)
        assert await gathering.output(int) == 6
        assert at_work.most == 1


async def test_many_runs_that_wait_for_people_leave_room_for_one_that_works(
    stack: StackUnderTest, scratch: Path
) -> None:
    async with (
        caller_of(stack, scratch) as caller,
        Client.from_env(caller.env) as client,
        asyncio.timeout(RUN_TIMEOUT_S * 4),
        working(caller) as at_work,
    ):
        waiting = [await client.start("asks", number) for number in range(MANY)]
        asked = [await anext(body async for body in asked_by(run)) for run in waiting]
        new = await client.start("works", 17)
        assert await new.output(int) == 17
        for run, request in zip(waiting, asked, strict=True):
            await run.answer(request.request_id, option="yes")
        assert [await run.output(bool) for run in waiting] == [True] * MANY
        assert at_work.most == 1


async def asked_by(run: RunHandle) -> AsyncIterator[events.RequestOpened]:
    """What a run asks."""
    async for event in run.events():
        if isinstance(event.body, events.RequestOpened):
            yield event.body
