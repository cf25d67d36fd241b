"""What a step asks of its run is refused at the first attempt: after a takeover nobody would ask for it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_worker.agents import Run
from oa_worker.agents.testing import Played, play, play_with_deaths
from oa_worker.agents.tests.rig import Answer, Ask, finish_of
from openagents.runtime.v1 import event_pb2 as pb

Act = Callable[[Run[Ask]], Coroutine[Any, Any, object]]


async def one() -> int:
    return 1


async def hear(run: Run[Ask]) -> object:
    async for message in run.inbox(str):
        return message
    return None


ASKED: dict[str, Act] = {
    "step": lambda run: run.step("inner", one),
    "now": lambda run: run.now(),
    "random": lambda run: run.random(),
    "sleep": lambda run: run.sleep(timedelta(0)),
    "start_child": lambda run: run.start_child("quote", None),
    "approve": lambda run: run.approve("Order?"),
    "choose": lambda run: run.choose("How?", ["air", "sea"]),
    "ask": lambda run: run.ask("Why?"),
    "receive": lambda run: run.receive(str),
    "inbox": hear,
}


async def played_with(agent: Callable[[Run[Ask]], Coroutine[Any, Any, str]]) -> Played[str]:
    answers = {"Order?": "yes", "How?": "air", "Why?": "so"}
    return await play(agent, Ask("x"), inputs=["a", "b"], answers=answers, children={"quote": 1})


async def in_the_functions_own_task(act: Act, run: Run[Ask]) -> object:
    return await act(run)


async def in_another_task(act: Act, run: Run[Ask]) -> object:
    return await asyncio.create_task(act(run))


async def from_a_thread_of_the_step(act: Act, run: Run[Ask]) -> object:
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(act(run), loop).result())


@pytest.mark.parametrize("act", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("way", [in_the_functions_own_task, in_another_task, from_a_thread_of_the_step])
async def test_what_a_step_asks_for_is_refused_before_anything_is_done(
    way: Callable[[Act, Run[Ask]], Awaitable[object]], act: Act
) -> None:
    async def outer(run: Run[Ask]) -> object:
        return await way(act, run)

    async def agent(run: Run[Ask]) -> str:
        with pytest.raises(Refusal) as refused:
            await run.step("outer", lambda: outer(run))
        assert (refused.value.reason, refused.value.field) == ("invalid_value", "function")
        assert refused.value.message.startswith("step 'outer' asks for ")
        assert refused.value.message.endswith("; ask before the step or after it, and pass the result in")
        await run.step("after", one)
        child = await run.start_child("quote", None)
        await run.approve("Order?")
        return f"{await run.receive(str)} {child.run_id[-1]}"

    played = await played_with(agent)
    assert played.result == "a 1", "no input was consumed, and no number of a child was taken"
    assert (played.steps, [event.WhichOneof("kind") for event in played.events]) == (
        ["after"],
        ["step_completed", "child_started", "child_finished", "request_opened", "request_answered"],
    )
    assert played.events[3].request_opened.request_id == "r1"


async def test_a_step_in_a_thread_is_refused_the_same() -> None:
    async def agent(run: Run[Ask]) -> str:
        loop = asyncio.get_running_loop()

        def outer() -> object:
            return asyncio.run_coroutine_threadsafe(run.now(), loop).result()

        return str(await run.step("outer", outer))

    finish = (await played_with(agent)).finish
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_FAILED, "invalid_value")
    assert finish.message.startswith("step 'outer' asks for step 'now', which no step may; ask before ")


async def test_a_worker_refuses_it_as_well() -> None:
    async def agent(run: Run[Ask]) -> Answer:
        async def outer() -> float:
            return await run.random()

        return Answer(str(await run.step("outer", outer)))

    finish = await finish_of(agent)
    assert (finish.reason, "step 'outer' asks for" in finish.message) == ("invalid_value", True)


async def test_steps_beside_one_another_are_in_none() -> None:
    """A branch that another step's function is at work beside may ask."""

    async def agent(run: Run[Ask]) -> int:
        asked = asyncio.Event()

        async def slow() -> int:
            await asked.wait()
            return 1

        async def other() -> int:
            await run.now("beside")
            asked.set()
            return await run.step("other", one)

        return sum(await asyncio.gather(run.step("slow", slow), other()))

    assert (await play(agent, Ask("x"))).result == 2


async def test_a_step_may_say_something_and_use_what_others_asked_for() -> None:
    async def agent(run: Run[Ask]) -> str:
        child = await run.start_child("quote", None)

        async def work() -> int:
            async with run.assistant() as out:
                await out.write("hello")
            async with run.tool("search") as call:
                call.result = 1
            await run.emit("acme.x")
            await run.usage("m", input=1)
            await run.verification("v", passed=True)
            await run.progress("half")
            done = await run.restore(int) or 0
            await run.save(done + 1)
            return await child.result(int)

        worked = await run.step("work", work)
        return f"{worked} {await run.random() < 1}"

    async for played in play_with_deaths(agent, Ask("x"), children={"quote": 7}):
        assert played.result == "7 True"
        assert played.steps == ["work", "random"]


async def test_an_agent_that_a_step_plays_is_in_no_step() -> None:
    async def inner(run: Run[Ask]) -> int:
        return await run.step("inner", one)

    async def outer(run: Run[Ask]) -> int:
        async def plays() -> int:
            return (await play(inner, Ask("x"))).result

        return await run.step("plays", plays)

    assert (await play(outer, Ask("x"))).result == 1


WHERE: ContextVar[str] = ContextVar("WHERE", default="")


async def test_what_a_step_sets_in_its_context_is_not_there_after_it_whether_or_not_a_worker_died() -> None:
    seen: list[str] = []

    async def go(where: str) -> str:
        WHERE.set(where)
        await asyncio.sleep(0)
        assert WHERE.get() == where, "all of the step has one context"
        return where

    async def travels(run: Run[Ask]) -> Answer:
        WHERE.set("home")
        await run.step("go", go, "away")
        seen.append(WHERE.get())
        await run.step("go on", go, "further away")
        seen.append(WHERE.get())
        return Answer("")

    async for _ in play_with_deaths(travels, Ask("x")):
        pass
    assert set(seen) == {"home"}


async def test_a_step_runs_in_the_functions_own_task_and_hears_its_cancel_there() -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def waits(limit: asyncio.Timeout) -> None:
        tasks.append(asyncio.current_task())
        limit.reschedule(0)  # its time is up now that the function has begun, however long that took
        await asyncio.Event().wait()

    async def fails() -> None:
        raise KeyError("x")

    async def impatient(run: Run[Ask]) -> Answer:
        tasks.append(asyncio.current_task())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await run.step("wait", lambda: waits(limit))
        with pytest.raises(KeyError):
            await run.step("fail", fails)
        return Answer(await run.step("one", str, 1))

    assert (await play(impatient, Ask("x"))).result == Answer("1")
    assert tasks[0] is tasks[1]
