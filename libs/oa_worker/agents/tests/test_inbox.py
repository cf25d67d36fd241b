"""What people say to a run reaches its agent: all of it, in order, whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from oa_base.refusal import Refusal
from oa_testing.waiting import PATIENCE_S
from oa_worker.agents import AgentLimits, Run
from oa_worker.agents.testing import play, play_with_deaths
from oa_worker.agents.tests.rig import Answer, Ask, asked, working
from oa_worker.sdk.adapter import Assignment
from oa_worker.tests.fake_runtime import RUN
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1.worker_service_pb2 import HeldLease


@dataclass
class Word:
    """Something that is said."""

    say: str


async def listens(run: Run[Ask]) -> Answer:
    """Hears as many words as it is asked for, and says each."""
    heard = []
    async for word in run.inbox(Word):
        heard.append(word.say)
        await run.emit("acme.heard")
        if len(heard) == run.input.most:
            break
    return Answer(" ".join(heard))


async def test_inputs_are_heard_in_order_and_again_after_a_takeover() -> None:
    async for played in play_with_deaths(listens, Ask("?", 3), inputs=[Word("a"), {"say": "b"}, Word("c")]):
        assert played.result == Answer("a b c")


async def test_what_comes_while_the_agent_waits_is_heard_at_once() -> None:
    runtime = asked('{"question": "?", "most": 2}')
    log = runtime.logs[RUN]
    async with working(runtime, listens, Ask, Answer):
        await runtime.until(lambda: runtime.held[-1:] == [[RUN]])
        runtime.send_input(RUN, '{"say": "first"}')
        await runtime.until(lambda: any(event.HasField("custom") for event in log.events))
        runtime.send_input(RUN, '{"say": "second"}')
        await runtime.until(lambda: log.finished)
    assert log.events[-1].run_finished.result_json == '{"text":"first second"}'


async def test_what_came_while_nobody_could_be_told_is_heard_after_the_reconnect() -> None:
    runtime = asked('{"question": "?", "most": 1}')
    runtime.faults.read = [Refusal("unavailable", "away")]
    async with working(runtime, listens, Ask, Answer):
        await runtime.until(lambda: runtime.held[-1:] == [[RUN]])
        runtime.send_input(RUN, '{"say": "lost notice"}', say=False)
        runtime.announce_drain()
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '{"text":"lost notice"}'


async def test_an_input_that_is_not_of_the_type_fails_the_run_unless_it_is_caught() -> None:
    async def strict(run: Run[Ask]) -> str:
        return (await run.receive(Word)).say

    async def patient(run: Run[Ask]) -> str:
        while True:
            try:
                return (await run.receive(Word)).say
            except Refusal:
                continue

    inputs = [{"say": 17}, Word("b")]
    finish = (await play(strict, Ask("?"), inputs=inputs)).finish
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_FAILED, "invalid_value")
    assert "17" not in finish.message
    assert (await play(patient, Ask("?"), inputs=inputs)).result == "b"


async def test_any_json_is_heard_where_no_type_is_asked_for() -> None:
    async def any_json(run: Run[Ask]) -> object:
        return [await run.receive(), await run.receive()]

    assert (await play(any_json, Ask("?"), inputs=["text", {"a": [1, None]}])).result == ["text", {"a": [1, None]}]


async def says_a_and_b(
    lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
) -> AsyncIterator[bytes]:
    """A log of two inputs, which takes a moment to be read."""
    for seq, text in enumerate(('"a"', '"b"'), start=1):
        await asyncio.sleep(0)
        if seq > after_seq:
            body = pb.EventBody(input_received=pb.InputReceived(input_json=text))
            yield pb.RunEvent(run_id=lease.run_id, seq=seq, body=body).SerializeToString()


def run_of(assignment: Assignment) -> Run[Ask]:
    async def emit(event: pb.EventBody) -> None:
        """Of no matter here."""

    return Run(assignment, Ask("?"), emit, AgentLimits())


async def test_two_that_listen_share_what_is_said() -> None:
    run = run_of(Assignment(RUN, 1, 1, pb.RunSpec(), read=says_a_and_b))
    async with asyncio.timeout(PATIENCE_S):
        assert sorted(await asyncio.gather(run.receive(str), run.receive(str))) == ["a", "b"]


async def test_what_was_heard_too_late_is_heard_next() -> None:
    """The time of a `receive` may be over while it waits for the run's slot, with an input in its hand."""
    wants_slot, has_slot = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def waiting() -> AsyncIterator[None]:
        yield
        wants_slot.set()
        await has_slot.wait()

    run = run_of(Assignment(RUN, 1, 1, pb.RunSpec(), read=says_a_and_b, waiting=waiting))
    receiving = asyncio.create_task(run.receive(str))
    run.begins_in(receiving)
    async with asyncio.timeout(PATIENCE_S):
        await wants_slot.wait()
        receiving.cancel()
        await asyncio.wait([receiving])
        assert receiving.cancelled()
        assert [await run.receive(str), await run.receive(str)] == ["a", "b"]


async def test_a_play_says_that_an_agent_waits_for_more_than_it_was_given(caplog: pytest.LogCaptureFixture) -> None:
    async def agent(run: Run[Ask]) -> str:
        said = await run.receive(str)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await run.receive(str)
        return said

    assert (await play(agent, Ask("?"), inputs=["a"])).result == "a"
    assert [message for message in caplog.messages if "there is none left" in message]
