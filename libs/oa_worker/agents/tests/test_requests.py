"""What an agent asks people: once, whatever dies; the first answer counts, and no answer is never a yes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oa_base.refusal import Refusal
from oa_worker.agents import Run
from oa_worker.agents.testing import play, play_with_deaths
from oa_worker.agents.tests.rig import Answer, Ask, asked, working
from oa_worker.tests.fake_runtime import RUN, FakeRuntime
from openagents.runtime.v1 import event_pb2 as pb

LONG = timedelta(hours=1)


async def orders(run: Run[Ask]) -> Answer:
    """An agent that asks three things."""
    if not await run.approve("Order?", detail="for 12.50", deadline=LONG):
        return Answer("not approved")
    how = await run.choose("How?", {"air": "By air", "sea": "By sea"}, default="sea", deadline=LONG)
    note = await run.ask("What is to be written on it?")
    return Answer(f"{how}: {note}")


def asked_of(runtime: FakeRuntime) -> list[pb.RequestOpened]:
    return [event.request_opened for event in runtime.logs[RUN].events if event.HasField("request_opened")]


async def test_answers_come_back_whatever_dies() -> None:
    answers = {"Order?": "yes", "How?": "air", "What is to be written on it?": "Grüße"}
    async for played in play_with_deaths(orders, Ask("x"), answers=answers):
        assert played.result == Answer("air: Grüße")
        opened = [event.request_opened for event in played.events if event.HasField("request_opened")]
        assert [one.request_id for one in opened] == ["r1", "r2", "r3"], "each is asked once"


async def test_no_answer_is_no_the_default_or_nothing() -> None:
    assert (await play(orders, Ask("x"))).result == Answer("not approved")
    played = await play(orders, Ask("x"), answers={"Order?": "yes"})
    assert played.result == Answer("sea: None")
    assert (await play(orders, Ask("x"), answers={"Order?": "no"})).result == Answer("not approved")


async def test_an_answer_reaches_an_agent_that_waits_for_it() -> None:
    runtime = asked()
    async with working(runtime, orders, Ask, Answer):
        await runtime.until(lambda: len(asked_of(runtime)) == 1)
        first = asked_of(runtime)[0]
        assert (first.kind, first.title, first.detail) == (pb.REQUEST_KIND_APPROVAL, "Order?", "for 12.50")
        assert (first.default_option, first.HasField("deadline_time")) == ("no", True)
        runtime.answer(RUN, "r1", "yes")
        await runtime.until(lambda: len(asked_of(runtime)) == 2)
        assert {one.id: one.label for one in asked_of(runtime)[1].options} == {"air": "By air", "sea": "By sea"}
        runtime.answer(RUN, "r2", "air", say=False)  # a notice that is lost
        runtime.announce_drain()
        await runtime.until(lambda: len(asked_of(runtime)) == 3)
        assert not asked_of(runtime)[2].HasField("deadline_time")
        runtime.answer(RUN, "r3", text="hello")
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '{"text":"air: hello"}'


async def test_a_deadline_is_over_when_the_authority_has_said_so() -> None:
    async def hasty(run: Run[Ask]) -> Answer:
        return Answer(str(await run.approve("Order?", deadline=timedelta(milliseconds=50))))

    runtime = asked()
    runtime.faults.read = []
    async with working(runtime, hasty, Ask, Answer):
        await runtime.until(lambda: len(asked_of(runtime)) == 1)
        runtime.faults.read = [Refusal("unavailable", "away")]
        await runtime.until(lambda: runtime.logs[RUN].finished)
    kinds = [event.WhichOneof("kind") for event in runtime.logs[RUN].events]
    assert kinds == ["request_opened", "request_expired", "run_finished"]
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '{"text":"False"}'


async def test_an_answer_in_the_last_moment_counts_and_not_the_default() -> None:
    async def hasty(run: Run[Ask]) -> Answer:
        return Answer(str(await run.approve("Order?", deadline=timedelta(milliseconds=300))))

    runtime = asked()
    runtime.faults.expires_when.clear()
    async with working(runtime, hasty, Ask, Answer):
        await runtime.until(lambda: len(asked_of(runtime)) == 1)
        runtime.answer(RUN, "r1", "yes", say=False)
        runtime.faults.expires_when.set()
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '{"text":"True"}'


async def test_another_question_at_the_same_place_fails_the_run() -> None:
    async def changed(run: Run[Ask]) -> str:
        await run.ask("Why?" if run.attempt == 1 else "Who?")
        await run.emit("acme.asked")
        return ""

    finish = (await play(changed, Ask("x"), answers={"Why?": "so"}, death=3)).finish
    assert finish.reason == "step_mismatch"
    assert finish.message.startswith("request r1 of this run was 'Why?', and 'Who?' is asked now; ")


async def test_what_can_not_be_asked_is_refused_where_it_is_asked() -> None:
    async def wordy(run: Run[Ask]) -> str:
        await run.ask("x" * 201)
        return ""

    finish = (await play(wordy, Ask("x"))).finish
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_FAILED, "invalid_value")


async def approves(run: Run[Ask]) -> Answer:
    """An agent that waits for a person."""
    return Answer(str(await run.approve("May I?")))


@pytest.mark.parametrize("takes_capacity", [True, False], ids=["this release", "an older authority"])
async def test_an_authority_is_told_on_each_stream_that_a_run_only_waits(takes_capacity: bool) -> None:
    runtime = asked()
    runtime.takes_capacity = takes_capacity
    async with working(runtime, approves, Ask, Answer):
        await runtime.until(lambda: runtime.streams == 1 and (len(runtime.capacities) == 1 or not takes_capacity))
        runtime.announce_drain()
        await runtime.until(lambda: runtime.streams == 2 and (len(runtime.capacities) == 2 or not takes_capacity))
        runtime.answer(RUN, "r1", option="yes")
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.capacities[:2] == ([2, 2] if takes_capacity else [])
    assert "" not in runtime.said
