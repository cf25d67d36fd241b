"""Whatever an agent does, it ends the same way in the test kit, on a worker, after each takeover, and in a replay."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping

import pytest

from oa_worker.agents import AgentLimits
from oa_worker.agents.replays.replaying import replay
from oa_worker.agents.testing import play_with_deaths
from oa_worker.agents.tests.programs import CHILDREN, GOOD, Program
from oa_worker.agents.tests.recordings import recorded
from oa_worker.agents.tests.rig import Ask, asked, working
from oa_worker.tests.fake_runtime import RUN, FakeRuntime
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1.worker_service_pb2 import StartChildRequest

HASTY_MS = 20
"""How long branches wait for one whose step raises: it asks for nothing that the log has."""
LIMITS = AgentLimits(past_patience_ms=HASTY_MS)


@pytest.mark.parametrize("seed", range(12))
async def test_any_agent_ends_the_same_way_wherever_it_runs(seed: int) -> None:
    program = Program.of(seed)
    finishes: list[pb.RunFinished] = []
    how = {"inputs": program.inputs, "answers": program.answers, "children": CHILDREN, "limits": LIMITS}
    async for played in play_with_deaths(program.agent, Ask("x"), **how):  # type: ignore[arg-type]
        finishes.append(played.finish)
        check_once(played.events)
    run = recorded(played, Ask("x"), inputs=program.inputs)
    (await replay(program.agent, run, raised=program.raised, patience_ms=HASTY_MS)).check(whole=True)

    events = await on_a_worker(program, [])
    finishes.append(events[-1].run_finished)
    cuts = random.Random(seed).sample(range(len(events)), min(2, len(events)))
    finishes += [(await on_a_worker(program, events[:cut]))[-1].run_finished for cut in cuts]
    assert finishes == [played.finish] * len(finishes)


async def on_a_worker(program: Program, before: list[pb.EventBody]) -> list[pb.EventBody]:
    """The events of a run of the program on a worker; the first worker died with these."""
    runtime = asked('{"question": "x"}')
    log = runtime.logs[RUN]
    said = [pb.EventBody(input_received=pb.InputReceived(sent_by="usr_1", input_json='"hi"'))] * len(program.inputs)
    log.events += before[: len(said)] + said[len(before) :] + before[len(said) :]
    log.attempt = 2 if before else 1
    for started in (event.child_started for event in before if event.HasField("child_started")):
        runtime.children[started.child_id] = StartChildRequest(child_id=started.child_id)
    async with working(runtime, program.agent, Ask, list, LIMITS):
        others = asyncio.create_task(others_do_their_part(runtime, program.answers))
        await runtime.until(lambda: log.finished)
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
    check_once(log.events)
    return log.events


def check_once(events: list[pb.EventBody]) -> None:
    """Everything that an agent asks for has a name of its own in these programs, and is once in the log."""
    names = [event.step_completed.name for event in events] + [event.request_opened.title for event in events]
    names += [event.child_started.input_sha256.hex() for event in events]
    found = Counter(name for name in names if name)
    assert not {name: count for name, count in found.items() if count > 1}


async def others_do_their_part(runtime: FakeRuntime, answers: Mapping[str, str]) -> None:
    """People answer what is asked, and children end."""
    await runtime.until(lambda: bool(runtime.hellos))
    while True:
        events = list(runtime.logs[RUN].events)
        settled = {event.request_answered.request_id for event in events}
        settled |= {event.child_finished.run_id for event in events}
        for event in events:
            opened, started = event.request_opened, event.child_started
            if event.HasField("request_opened") and opened.request_id not in settled:
                runtime.write(RUN, answer_to(opened, answers[opened.title]))
            if event.HasField("child_started") and started.run_id not in settled:
                runtime.write(RUN, end_of(started))
        await asyncio.sleep(0.002)


def answer_to(opened: pb.RequestOpened, said: str) -> pb.EventBody:
    how = {"text" if opened.kind == pb.REQUEST_KIND_TEXT else "option": said}
    answered = pb.RequestAnswered(request_id=opened.request_id, answered_by="usr_1", **how)
    return pb.EventBody(request_answered=answered)


def end_of(started: pb.ChildStarted) -> pb.EventBody:
    succeeded = pb.RunFinished(outcome=pb.RUN_OUTCOME_SUCCEEDED, result_json="5")
    failed = pb.RunFinished(outcome=pb.RUN_OUTCOME_FAILED, reason="agent_error", message="ValueError: boo")
    finish = succeeded if started.adapter == GOOD else failed
    return pb.EventBody(child_finished=pb.ChildFinished(run_id=started.run_id, finish=finish))
