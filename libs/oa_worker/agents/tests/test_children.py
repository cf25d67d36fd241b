"""Runs that an agent starts: each once, whatever dies, and their ends are heard."""

from __future__ import annotations

import asyncio

import pytest

from oa_base.at_work import RUN_AT_WORK
from oa_base.refusal import Refusal
from oa_worker.agents import ChildFailed, Run
from oa_worker.agents.replays.replaying import replay
from oa_worker.agents.testing import play, play_with_deaths
from oa_worker.agents.tests.recordings import recorded
from oa_worker.agents.tests.rig import Answer, Ask, asked, working
from oa_worker.tests.fake_runtime import RUN
from openagents.runtime.v1 import event_pb2 as pb


async def asks_others(run: Run[Ask]) -> Answer:
    """An agent that starts two runs, and uses what they return."""
    price = await run.start_child("quote", {"item": run.input.question})
    stock = await run.start_child("stock", None, title="Is it there?", cancel_with_parent=False)
    left, costs = await asyncio.gather(stock.result(int), price.result(str))
    return Answer(f"{left} for {costs}")


def started(events: list[pb.EventBody]) -> list[tuple[str, str]]:
    return [(one.child_started.child_id, one.child_started.adapter) for one in events if one.HasField("child_started")]


async def test_children_are_started_once_whatever_dies() -> None:
    children = {"quote": "12.50", "stock": 3}
    async for played in play_with_deaths(asks_others, Ask("tea"), children=children):
        assert played.result == Answer("3 for 12.50")
        assert started(played.events) == [("c1", "quote"), ("c2", "stock")]


async def test_a_child_that_fails_raises_what_its_parent_may_handle() -> None:
    played = await play(asks_others, Ask("tea"), children={"quote": ValueError("no"), "stock": 3})
    assert played.finish.reason == "agent_error"
    assert "ChildFailed" in played.finish.message

    async def handles(run: Run[Ask]) -> Answer:
        child = await run.start_child("quote", None)
        try:
            return Answer(await child.result(str))
        except ChildFailed as failed:
            return Answer(f"{failed.reason}: {failed.message}")

    played = await play(handles, Ask("tea"), children={"quote": ValueError("no")})
    assert played.result == Answer("agent_error: ValueError: no")


async def test_a_result_of_another_type_is_refused() -> None:
    played = await play(asks_others, Ask("tea"), children={"quote": "1", "stock": "many"})
    assert (played.finish.reason, "does not fit" in played.finish.message) == ("payload_mismatch", True)


async def test_what_has_no_result_in_a_test_is_named() -> None:
    played = await play(asks_others, Ask("tea"), children={"quote": "1"})
    assert played.finish.reason == "invalid_value"
    assert "'stock'" in played.finish.message


async def test_other_children_at_the_same_place_fail_the_run() -> None:
    attempts = 0

    async def fickle(run: Run[Ask]) -> Answer:
        nonlocal attempts
        attempts += 1
        await run.start_child("quote" if attempts == 1 else "stock", None)
        await run.step("work", asyncio.sleep, 0)
        return Answer("")

    played = await play(fickle, Ask("x"), children={"quote": 1, "stock": 1}, death=2)
    assert (played.finish.reason, played.attempts) == ("step_mismatch", 2)
    assert "'quote'" in played.finish.message
    assert "'stock'" in played.finish.message


async def test_a_child_with_another_input_fails_the_run() -> None:
    async def fickle(run: Run[Ask]) -> Answer:
        await run.start_child("quote", run.attempt)
        await run.step("work", asyncio.sleep, 0)
        return Answer("")

    played = await play(fickle, Ask("x"), children={"quote": 1}, death=2)
    assert (played.finish.reason, played.attempts) == ("step_mismatch", 2)
    assert "another input" in played.finish.message


async def test_a_child_whose_log_does_not_state_its_input_is_the_one_at_its_place() -> None:
    """As an older authority wrote it."""

    async def agent(run: Run[Ask]) -> list[str]:
        return list(await asyncio.gather(*(_id_of(run, name) for name in "ab")))

    played = await play(agent, Ask("x"), children={"quote": 1})
    for event in played.events:
        if event.HasField("child_started"):
            event.child_started.ClearField("input_sha256")
    replayed = await replay(agent, recorded(played, Ask("x")))
    replayed.check(whole=True)


async def _id_of(run: Run[Ask], name: str) -> str:
    return (await run.start_child("quote", name)).run_id


async def test_a_worker_starts_a_child_and_hears_of_its_end() -> None:
    runtime = asked()
    async with working(runtime, asks_others, Ask, Answer):
        await runtime.until(lambda: len(started(runtime.logs[RUN].events)) == 2)
        first, second = runtime.children["c1"], runtime.children["c2"]
        assert (first.spec.adapter, first.spec.agent.input_json, first.cancel_with_parent) == (
            "quote",
            '{"item":"why"}',
            True,
        )
        assert (second.spec.title, second.cancel_with_parent) == ("Is it there?", False)
        for number, result in enumerate(('"12.50"', "3")):
            end = pb.RunFinished(outcome=pb.RUN_OUTCOME_SUCCEEDED, result_json=result)
            runtime.write(RUN, pb.EventBody(child_finished=pb.ChildFinished(run_id=f"run_{number:026d}", finish=end)))
        await runtime.until(lambda: runtime.logs[RUN].finished)
        assert runtime.logs[RUN].events[-1].run_finished.result_json == '{"text":"3 for 12.50"}'


async def test_an_input_that_has_no_form_in_json_is_refused_at_once() -> None:
    async def wrong(run: Run[Ask]) -> Answer:
        with pytest.raises(Refusal) as refused:
            await run.start_child("quote", object())
        return Answer(refused.value.field)

    assert (await play(wrong, Ask("x"), children={"quote": 1})).result == Answer("input")


async def test_what_an_agent_calls_can_tell_of_which_run_it_is() -> None:
    """In its own task, in those that it starts and in the threads of steps; and not where the worker is."""
    ids: list[str] = []

    async def tells(run: Run[Ask]) -> Answer:
        ids.append(run.id)
        ids.append(RUN_AT_WORK.get())
        ids.append(await asyncio.create_task(asyncio.to_thread(RUN_AT_WORK.get)))
        ids.append(await run.step("which", _which))
        return Answer("")

    await play(tells, Ask("tea"))
    assert len(ids) == 4
    assert len(set(ids)) == 1
    assert RUN_AT_WORK.get() == ""


def _which() -> str:
    return RUN_AT_WORK.get()
