"""What an agent saves is there for the next worker, wherever the first one dies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from oa_base.refusal import Refusal
from oa_worker.agents import AgentLimits, Run
from oa_worker.agents.replays.replaying import replay
from oa_worker.agents.testing import play, play_with_deaths
from oa_worker.agents.tests.recordings import recorded
from oa_worker.agents.tests.rig import Answer, Ask, asked, working
from oa_worker.tests.fake_runtime import RUN
from openagents.runtime.v1 import event_pb2 as pb


@dataclass
class Place:
    """Where an agent is."""

    done: list[str] = field(default_factory=list)


class Reader:
    """An agent that reads files; it sees how often it reads each."""

    def __init__(self) -> None:
        self.read: list[str] = []

    async def run(self, run: Run[Ask]) -> Answer:
        """Goes on after the file that was saved last."""
        place = await run.restore(Place) or Place()
        for name in "abc"[len(place.done) :]:
            self.read.append(name)
            place.done.append(name.upper())
            await run.save(place)
        return Answer("".join(place.done))


async def test_the_newest_checkpoint_is_what_the_next_worker_goes_on_from() -> None:
    readers: list[Reader] = []

    async def agent(run: Run[Ask]) -> Answer:
        if run.attempt == 1:
            readers.append(Reader())
        return await readers[-1].run(run)

    deaths = 0
    async for played in play_with_deaths(agent, Ask("?")):
        assert played.result == Answer("ABC")
        numbers = [event.checkpoint_saved.number for event in played.events]
        assert (numbers, played.saved[-1]) == ([1, 2, 3], {"done": ["A", "B", "C"]})
        again = len(readers[-1].read) - 3
        assert again == (1 if deaths % 2 == 0 and played.attempts > 1 else 0), "only what was not saved yet"
        deaths += played.attempts - 1
    assert deaths == 6


async def test_nothing_saved_is_none_and_what_was_saved_here_is_there_at_once() -> None:
    seen: list[object] = []

    async def agent(run: Run[Ask]) -> str:
        seen.append(await run.restore(Place))
        seen.append(await run.save(Place(["a"])))
        seen.append(await run.restore(Place))
        seen.append(await run.save(None))
        seen.append(await run.restore())
        return ""

    await play(agent, Ask("?"))
    assert seen == [None, 1, Place(["a"]), 2, None]


async def test_a_checkpoint_of_another_type_is_refused_and_the_agent_may_begin_anew() -> None:
    async def agent(run: Run[Ask]) -> str:
        try:
            place = await run.restore(Place)
        except Refusal as refusal:
            return f"{refusal.reason} {refusal.field}"
        await run.save({"done": "all"})
        await run.emit("acme.never")
        return str(place)

    assert (await play(agent, Ask("?"), death=2)).result == "invalid_value state_json"


async def test_what_has_no_form_in_json_or_is_too_large_is_refused_where_it_is_saved() -> None:
    async def agent(run: Run[Ask]) -> str:
        await run.save(object() if run.input.question == "object" else "é" * 9)
        return ""

    assert (await play(agent, Ask("object"))).finish.reason == "invalid_value"
    finish = (await play(agent, Ask("long"), limits=AgentLimits(max_checkpoint_bytes=19))).finish
    assert (finish.reason, "20 bytes" in finish.message) == ("payload_too_large", True)
    assert (await play(agent, Ask("long"), limits=AgentLimits(max_checkpoint_bytes=20))).result == ""


async def test_checkpoints_that_are_saved_at_once_have_each_their_number() -> None:
    async def agent(run: Run[Ask]) -> list[int]:
        return sorted(await asyncio.gather(*(run.save(number) for number in range(5))))

    async for played in play_with_deaths(agent, Ask("?")):
        numbers = [event.checkpoint_saved.number for event in played.events]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("trouble", [None, Refusal("unavailable", "away")])
async def test_a_worker_that_takes_over_reads_the_newest_and_numbers_on(trouble: Refusal | None) -> None:
    runtime = asked()
    log = runtime.logs[RUN]
    for number, state in enumerate(['{"done":["A"]}', '{"done":["A","B"]}'], start=1):
        log.events.append(pb.EventBody(checkpoint_saved=pb.CheckpointSaved(number=number, state_json=state)))
    log.attempt = 2
    runtime.faults.read = [] if trouble is None else [trouble]
    reader = Reader()
    async with working(runtime, reader.run, Ask, Answer):
        await runtime.until(lambda: log.finished)
    assert log.events[-1].run_finished.result_json == '{"text":"ABC"}'
    assert reader.read == ["c"]
    assert log.events[-2].checkpoint_saved == pb.CheckpointSaved(number=3, state_json='{"done":["A","B","C"]}')


async def test_a_checkpoint_is_stored_when_save_returns() -> None:
    runtime = asked()
    runtime.faults.drop_before = {1}

    async def agent(run: Run[Ask]) -> Answer:
        await run.save("here")
        return Answer(f"{len(runtime.logs[RUN].events)} stored, {runtime.appends} sent")

    async with working(runtime, agent, Ask, Answer):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '{"text":"1 stored, 2 sent"}'


async def test_a_recorded_run_is_replayed_from_where_its_last_attempt_began() -> None:
    async def agent(run: Run[Ask]) -> str:
        found = await run.restore(int)
        await run.save((found or 0) + 1)
        return f"from {found}"

    played = await play(agent, Ask("?"))
    (await replay(agent, recorded(played, Ask("?")), input=Ask, output=str)).check(whole=True)
