"""A run is used in the event loop of its function: a thread that uses it in one of its own is refused, and not hung."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_testing.waiting import PATIENCE_S
from oa_worker.agents import AgentLimits, Run
from oa_worker.agents.testing import play, play_with_deaths
from oa_worker.agents.tests.rig import Answer, Ask, finish_of

Act = Callable[[Run[Ask]], Coroutine[Any, Any, object]]


def one() -> int:
    return 1


async def say(run: Run[Ask]) -> None:
    async with run.assistant() as out:
        await out.write("x")


async def use_a_tool(run: Run[Ask]) -> None:
    async with run.tool("search"):
        pass


async def hear(run: Run[Ask]) -> object:
    return await anext(aiter(run.inbox(str)))


async def wait(run: Run[Ask]) -> None:
    async with run.waiting():
        pass


async def let_another_work(run: Run[Ask]) -> object:
    return await (await run.start_child("quote", None)).result()


ACTS: dict[str, Act] = {
    "step": lambda run: run.step("one", one),
    "now": lambda run: run.now(),
    "random": lambda run: run.random(),
    "sleep": lambda run: run.sleep(timedelta(0)),
    "start_child": let_another_work,
    "approve": lambda run: run.approve("Order?"),
    "choose": lambda run: run.choose("How?", ["air", "sea"]),
    "ask": lambda run: run.ask("Why?"),
    "receive": lambda run: run.receive(str),
    "inbox": hear,
    "waiting": wait,
    "save": lambda run: run.save(1),
    "restore": lambda run: run.restore(),
    "assistant": say,
    "tool": use_a_tool,
    "usage": lambda run: run.usage("m", input=1),
    "progress": lambda run: run.progress("half"),
    "verification": lambda run: run.verification("v", passed=True),
    "emit": lambda run: run.emit("acme.x"),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_a_loop_of_a_thread_is_refused_before_anything_is_done(act: Act) -> None:
    async def agent(run: Run[Ask]) -> str:
        with pytest.raises(Refusal) as refused:
            await asyncio.to_thread(lambda: asyncio.run(act(run)))
        return f"{refused.value.reason}: {refused.value.message}"

    async with asyncio.timeout(PATIENCE_S):
        played = await play(agent, Ask("x"), inputs=["a"], children={"quote": 1})
    assert played.result.startswith("invalid_value: the run is used outside its function's event loop; from a thread, ")
    assert not played.events


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_a_thread_can_use_the_loop_of_the_function(act: Act) -> None:
    async def agent(run: Run[Ask]) -> str:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(act(run), loop).result())
        return "done"

    async with asyncio.timeout(PATIENCE_S):
        played = await play(agent, Ask("x"), inputs=["a"], children={"quote": 1})
    assert played.result == "done"


async def test_a_worker_refuses_it_as_well() -> None:
    async def agent(run: Run[Ask]) -> Answer:
        return Answer(str(await asyncio.to_thread(lambda: asyncio.run(run.step("one", one)))))

    finish = await finish_of(agent)
    assert (finish.reason, "outside its function's event loop" in finish.message) == ("invalid_value", True)


async def test_a_thread_that_waits_for_a_step_ends_when_the_worker_of_a_test_dies() -> None:
    """Frameworks call tools in threads that they wait for even when they are canceled."""

    async def agent(run: Run[Ask]) -> int:
        loop = asyncio.get_running_loop()
        step = asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(run.step("one", one), loop).result())
        tool = asyncio.ensure_future(step)
        try:
            return await asyncio.shield(tool)
        except asyncio.CancelledError:
            await asyncio.wait({tool})
            raise

    limits = AgentLimits(stop_timeout_ms=2_000 * int(PATIENCE_S))
    async with asyncio.timeout(PATIENCE_S):
        played = [each async for each in play_with_deaths(agent, Ask("x"), limits=limits)]
    assert [each.result for each in played] == [1, 1, 1]
