"""A run that is to end: what the authority refuses may overtake the cancel, and the run is canceled all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_worker.agents import Child, Run
from oa_worker.agents.replays.replaying import replay
from oa_worker.agents.testing import Played, play
from oa_worker.agents.tests.recordings import recorded
from oa_worker.agents.tests.rig import Answer, Ask, working
from oa_worker.agents.tests.rig import asked as asked_runtime
from oa_worker.sdk.adapter import CancelSignal
from oa_worker.tests.fake_runtime import RUN
from openagents.runtime.v1 import event_pb2 as pb

CANCELED = pb.RUN_OUTCOME_CANCELED
Act = Callable[[Run[Ask]], Awaitable[object]]


async def start_child(run: Run[Ask]) -> None:
    await run.start_child("quote", None)


async def await_deadline(run: Run[Ask]) -> None:
    await run.approve("Order?", deadline=timedelta(milliseconds=1))


async def nothing(*_: Any, **__: Any) -> AsyncIterator[bytes]:
    """The events of a log in which nobody has settled the request."""
    for event in list[bytes]():
        yield event


async def played_with_refusals(act: Act, *, after_cancel: bool = False) -> Played[Any]:
    """Play an agent that does this while, or after, its run is canceled, and the authority refuses it."""
    cancel = CancelSignal()

    async def refused(*_: object) -> Any:
        asyncio.get_running_loop().call_soon(cancel.request, "enough", 600_000)
        raise Refusal("invalid_transition", "the run is canceling")

    async def agent(run: Run[Ask]) -> Answer:
        for one in (run._children, run._requests):
            one._assignment = replace(one._assignment, start_child=refused, expire=refused, read=nothing)
        if after_cancel:
            cancel.request("enough", 600_000)
            try:
                await asyncio.Event().wait()
            finally:
                await act(run)
        await act(run)
        raise AssertionError

    return await play(agent, Ask("tea"), cancel=cancel)


@pytest.mark.parametrize("act", [start_child, await_deadline])
async def test_a_refusal_that_overtakes_the_cancel_waits_for_it(act: Act) -> None:
    finish = (await played_with_refusals(act)).finish
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_CANCELED, "canceled")


@pytest.mark.parametrize("act", [start_child, await_deadline])
async def test_a_function_that_cleans_up_after_the_cancel_gets_the_refusal(act: Act) -> None:
    raised = list[str]()

    async def cleans_up(run: Run[Ask]) -> None:
        try:
            await act(run)
        except Refusal as refusal:
            raised.append(refusal.reason)

    finish = (await played_with_refusals(cleans_up, after_cancel=True)).finish
    assert (finish.outcome, raised) == (pb.RUN_OUTCOME_CANCELED, ["invalid_transition"])


async def ask_for_text(run: Run[Ask]) -> None:
    await run.ask("Why?")


async def choose_in_time(run: Run[Ask]) -> None:
    await run.choose("Which?", ["a", "b"], deadline=timedelta(seconds=3))


async def receive_input(run: Run[Ask]) -> None:
    await run.receive(str)


async def take_from_inbox(run: Run[Ask]) -> None:
    async for _ in run.inbox(str):
        pass


async def await_child(run: Run[Ask]) -> None:
    await Child(run._children, "run_00000000000000000000000001").result()


async def two_at_once(run: Run[Ask]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(start_child(run))
        group.create_task(ask_for_text(run))


ACTS = [
    start_child, await_deadline, ask_for_text, choose_in_time, receive_input, take_from_inbox, await_child, two_at_once
]  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("way", ["it lets it pass", "it turns it into the cancel", "it asks again"])
async def test_what_is_asked_for_after_the_cancel_is_refused_and_the_run_is_canceled(act: Act, way: str) -> None:
    asked = list[str]()

    async def cleans_up(run: Run[Ask]) -> Answer:
        runtime.cancel(RUN)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if way != "it lets it pass":
                with pytest.raises((Refusal, ExceptionGroup)) as refused:
                    await act(run)
                asked.append(str(refused.value))
            if way == "it turns it into the cancel":
                raise
            await act(run)
        raise AssertionError

    runtime = asked_runtime()
    async with working(runtime, cleans_up, Ask, Answer):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    (end,) = runtime.logs[RUN].events
    finish = end.run_finished
    assert (finish.outcome, finish.reason, finish.message) == (CANCELED, "canceled", "ended on request"), finish
    said = (
        "invalid_transition: the run is being canceled; clean up without asking people, starting runs, or waiting for "
        "inputs or children"
    )
    assert act is two_at_once or asked in ([], [said])


async def test_what_the_log_has_at_the_cancel_can_still_be_had() -> None:
    cancel, heard = CancelSignal(), list[object]()

    async def agent(run: Run[Ask]) -> Answer:
        child = await run.start_child("quote", None)
        cancel.request("enough", 600_000)
        try:
            await asyncio.Event().wait()
        finally:
            heard.append(await child.result(str))
            async for message in run.inbox(str):
                heard.append(message)
        raise AssertionError

    played = await play(agent, Ask("tea"), inputs=["a", "b"], children={"quote": "12.50"}, cancel=cancel)
    assert (played.finish.outcome, heard) == (CANCELED, ["12.50", "a", "b"])


async def test_a_replay_of_a_run_that_waited_after_its_cancel_is_the_same() -> None:
    cancel, heard = CancelSignal(), list[str]()

    async def agent(run: Run[Ask]) -> Answer:
        child = await run.start_child("quote", None)
        if not cancel.requested:
            asyncio.get_running_loop().call_soon(cancel.request, "enough", 600_000)
        try:
            await asyncio.Event().wait()
        finally:
            await child.result(str)
            for wait in (run.receive, Child(run._children, "run_00000000000000000000000009").result):
                try:
                    await wait(str)
                except Refusal as refusal:
                    heard.append(refusal.reason)
        raise AssertionError

    played = await play(agent, Ask("tea"), children={"quote": "12.50"}, cancel=cancel)
    assert (played.finish.outcome, heard) == (CANCELED, ["invalid_transition"] * 2)
    (await replay(agent, recorded(played, Ask("tea"), cancel_at=2))).check(whole=True)
    assert heard == ["invalid_transition"] * 4


async def test_a_function_that_asks_without_end_still_hears_of_its_cancel() -> None:
    cancel, heard = CancelSignal(), list[str]()

    async def agent(run: Run[Ask]) -> Answer:
        cancel.request("enough", 600_000)
        try:
            while True:
                try:
                    await run.approve("Order?")
                except Refusal as refusal:
                    heard.append(refusal.reason)
        except asyncio.CancelledError:
            heard.append("canceled")
            raise

    assert (await play(agent, Ask("tea"), cancel=cancel)).finish.outcome == CANCELED
    assert heard[-1] == "canceled"


async def test_a_question_that_was_open_before_the_cancel_does_not_fail_the_run() -> None:
    """Its time is over after the cancel, and the authority refuses to say so."""
    cancel = CancelSignal()

    async def refused(*_: object) -> Any:
        raise Refusal("invalid_transition", "a run that is canceling does not take request.expired")

    async def agent(run: Run[Ask]) -> Answer:
        run._requests._assignment = replace(run._requests._assignment, expire=refused, read=nothing)
        question = asyncio.create_task(await_deadline(run))
        await asyncio.sleep(0)
        cancel.request("enough", 600_000)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await question
        raise AssertionError

    finish = (await play(agent, Ask("tea"), cancel=cancel)).finish
    assert (finish.outcome, finish.reason) == (CANCELED, "canceled")


async def test_another_error_beside_the_refusal_fails_the_run() -> None:
    cancel = CancelSignal()

    async def broken() -> None:
        raise ValueError("no")

    async def agent(run: Run[Ask]) -> Answer:
        cancel.request("enough", 600_000)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            async with asyncio.TaskGroup() as group:
                group.create_task(start_child(run))
                group.create_task(broken())
        raise AssertionError

    finish = (await play(agent, Ask("tea"), cancel=cancel)).finish
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_FAILED, "agent_error")


async def test_a_replay_of_a_run_that_asked_after_its_cancel_is_the_same() -> None:
    cancel = CancelSignal()

    async def agent(run: Run[Ask]) -> Answer:
        await run.now()
        if not cancel.requested:
            asyncio.get_running_loop().call_soon(cancel.request, "enough", 600_000)
        try:
            await run.receive(str)
        finally:
            await run.approve("Undo?")
        raise AssertionError

    played = await play(agent, Ask("tea"), cancel=cancel)
    assert played.finish.outcome == CANCELED
    (await replay(agent, recorded(played, Ask("tea"), cancel_at=1))).check(whole=True)
