"""Replays of functions whose branches do something by themselves: nobody is judged while a branch is at work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest

from oa_runlog import events as ev
from oa_worker.agents import Run
from oa_worker.agents.primitives.takeover.past import QUIET_TURNS
from oa_worker.agents.replays.recorded import RecordedRun
from oa_worker.agents.replays.replaying import replay
from oa_worker.agents.testing import play
from oa_worker.agents.tests.recordings import recorded
from oa_worker.agents.tests.rig import Ask
from oa_worker.sdk.adapter import CancelSignal

FOR_EVER_MS = 10**9
"""For those that never need it."""
AT_ONCE_MS = 0
"""For those in which nothing is at work, or for ever."""
OF_TWO: dict[str, Any] = {"input": Ask, "output": str}
Work = Callable[[], Awaitable[object]]
Agent = Callable[[Run[Ask]], Any]


async def note(name: str) -> str:
    return name


async def in_a_thread() -> None:
    await asyncio.to_thread(lambda: time.sleep(0.05))


async def many_turns() -> None:
    for _ in range(3 * QUIET_TURNS):
        await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def two(work: Work, *, last: str = "a2", said: str = "ok") -> Agent:
    """An agent of two branches; the first step of `a` ends after the step of `b`, before which `b` works by itself."""

    async def agent(run: Run[Ask]) -> str:
        b_is_done = asyncio.Event()

        async def after_b() -> str:
            await b_is_done.wait()
            return "a"

        async def a() -> None:
            await run.step("a", after_b)
            await run.step(last, note, "a2")

        async def b() -> None:
            await work()
            await run.step("b", note, "b")
            b_is_done.set()

        await asyncio.gather(a(), b())
        return said

    return agent


async def of_two(upto: int | None = None) -> RecordedRun:
    run = recorded(await play(two(in_a_thread), Ask("x")), Ask("x"), upto=upto)
    steps = [event.body.name for event in run.events if isinstance(event.body, ev.StepCompleted)]
    assert steps == ["b", "a", "a2"][:upto]
    return run


async def test_a_branch_may_work_by_itself_before_it_asks_for_what_comes_next() -> None:
    (await replay(two(in_a_thread), await of_two(), patience_ms=FOR_EVER_MS, **OF_TWO)).check(whole=True)
    (await replay(two(many_turns), await of_two(), patience_ms=FOR_EVER_MS, **OF_TWO)).check(whole=True)


async def test_a_log_that_has_not_ended_is_followed_past_a_branch_that_works_by_itself() -> None:
    replayed = await replay(two(many_turns), await of_two(upto=2), **OF_TWO)
    assert (replayed.is_same, replayed.stopped) == (True, "step 3, 'a2'")


async def test_changed_code_is_found_after_a_branch_that_works_by_itself() -> None:
    changed = two(many_turns, last="refund", said="changed too")
    diverged = (await replay(changed, await of_two(), **OF_TWO)).divergence
    assert diverged is not None
    assert (diverged.recorded, diverged.asked) == ("step 3, 'a2'", "step 4, 'refund'")


async def test_what_the_log_has_is_never_said_to_be_missing_in_it() -> None:
    for run in (await of_two(), await of_two(upto=2)):
        replayed = await replay(two(for_ever), run, patience_ms=AT_ONCE_MS, **OF_TWO)
        assert replayed.stopped == ""
        assert replayed.divergence is not None
        assert (replayed.divergence.recorded, replayed.divergence.asked) == ("step 2, 'b'", "step 1, 'a'")
        assert "`patience_ms`" in str(replayed.divergence)


async def test_children_and_several_pauses_between_steps() -> None:
    async def agent(run: Run[Ask]) -> str:
        b_is_done = asyncio.Event()

        async def a() -> str:
            await run.step("a", note, "a")
            await b_is_done.wait()
            child = await run.start_child("leaf", "x")
            return await child.result(str)

        async def b() -> None:
            await in_a_thread()
            await run.step("b", note, "b")
            await in_a_thread()
            await run.step("b2", note, "b2")
            b_is_done.set()

        return (await asyncio.gather(a(), b()))[0]

    async def starts_it_before(run: Run[Ask]) -> str:
        """The same, but nothing holds the child back until the steps of the other branch are done."""

        async def a() -> str:
            await run.step("a", note, "a")
            return await (await run.start_child("leaf", "x")).result(str)

        async def b() -> None:
            await in_a_thread()
            await run.step("b", note, "b")
            await in_a_thread()
            await run.step("b2", note, "b2")

        return (await asyncio.gather(a(), b()))[0]

    run = recorded(await play(agent, Ask("x"), children={"leaf": "grown"}), Ask("x"))
    for one in (agent, starts_it_before):
        (await replay(one, run, patience_ms=FOR_EVER_MS, **OF_TWO)).check(whole=True)


async def test_a_branch_that_listens_for_ever_judges_nobody() -> None:
    async def agent(run: Run[Ask]) -> str:
        async def listens() -> None:
            async for _ in run.inbox(str):
                pass

        listening = asyncio.create_task(listens())
        await in_a_thread()
        await run.step("a", note, "a")
        await in_a_thread()
        await run.step("b", note, "b")
        listening.cancel()
        return "ok"

    run = recorded(await play(agent, Ask("x"), inputs=["one"]), Ask("x"), inputs=["one"])
    (await replay(agent, run, patience_ms=FOR_EVER_MS, **OF_TWO)).check(whole=True)


async def test_a_cancel_waits_for_what_the_function_does_by_itself() -> None:
    listens = asyncio.Event()

    async def agent(run: Run[Ask]) -> str:
        await run.step("begin", note, "x")
        await in_a_thread()
        with suppress(asyncio.CancelledError):
            listens.set()
            await run.receive(str)
        return await run.step("undo", note, "y")

    cancel = CancelSignal()
    playing = asyncio.ensure_future(play(agent, Ask("x"), cancel=cancel))
    await listens.wait()
    cancel.request("enough", 10_000)
    log = recorded(await playing, Ask("x"), cancel_at=1)
    (await replay(agent, log, patience_ms=FOR_EVER_MS, **OF_TWO)).check(whole=True)


async def asks_after_a_step(run: Run[Ask]) -> str:
    await run.step("note", note, "a")
    return str(await run.approve("Buy?"))


async def skips_the_step(run: Run[Ask]) -> str:
    return str(await run.approve("Buy?"))


async def skips_the_step_in_a_branch(run: Run[Ask]) -> str:
    return str(await asyncio.create_task(run.approve("Buy?")))


async def test_only_a_function_with_branches_is_asked_whether_one_of_them_is_slow() -> None:
    run = recorded(await play(asks_after_a_step, Ask("x"), answers={"Buy?": "yes"}), Ask("x"))
    for agent, has_advice in ((skips_the_step, False), (skips_the_step_in_a_branch, True)):
        diverged = (await replay(agent, run, patience_ms=AT_ONCE_MS)).divergence
        assert diverged is not None
        assert (diverged.recorded, diverged.asked) == ("step 1, 'note'", "request r1, 'Buy?'")
        assert ("patience_ms" in diverged.advice) == has_advice


LONG = timedelta(days=100_000)
"""Longer than anybody waits, by any clock."""


async def sleeps(run: Run[Ask]) -> str:
    await run.step("note", note, "a")
    await run.sleep(LONG)
    return "awake"


async def sleeps_in_a_branch(run: Run[Ask]) -> str:
    async with asyncio.TaskGroup() as branches:
        branches.create_task(run.step("note", note, "a"))
        branches.create_task(run.sleep(LONG))
    return "awake"


async def asks_for_more(run: Run[Ask]) -> str:
    await run.sleep(LONG)
    return "awake"


@pytest.mark.parametrize("agent", [sleeps, sleeps_in_a_branch])
async def test_a_cancel_reaches_a_function_that_slept_then(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = CancelSignal()

    async def is_canceled_then(end: datetime, now: object) -> None:
        cancel.request("enough", 10_000)
        await for_ever()

    monkeypatch.setattr("oa_worker.agents.run.wait_until", is_canceled_then)
    log = recorded(await play(agent, Ask("x"), cancel=cancel), Ask("x"), cancel_at=2)
    (await replay(agent, log, patience_ms=AT_ONCE_MS)).check(whole=True)
    diverged = (await replay(asks_for_more, log, patience_ms=AT_ONCE_MS)).divergence
    assert diverged is not None
    assert diverged.recorded == "step 1, 'note'"
