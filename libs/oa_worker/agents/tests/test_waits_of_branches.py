"""A wait that another branch gave up stays given up, after a takeover and in a replay, however late it is by then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.clock import ns_of
from oa_runlog import events as ev
from oa_runlog import wire
from oa_runlog.tests import values
from oa_wire.shapes import json_text
from oa_worker.agents import Run
from oa_worker.agents.primitives.steps.steps import arguments_of, fingerprint_of
from oa_worker.agents.replays.recorded import RecordedRun
from oa_worker.agents.replays.replaying import replay
from oa_worker.agents.tests.rig import Ask, asked, working
from oa_worker.tests.fake_runtime import RUN
from openagents.runtime.v1 import event_pb2 as pb

HOUR = timedelta(hours=1)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
END = BEGAN + HOUR
CALLS: list[str] = []
Events = Sequence[tuple[pb.EventBody, datetime]]


def note(what: str) -> str:
    CALLS.append(what)
    return what


@pytest.fixture(autouse=True)
def calls() -> None:
    CALLS.clear()


async def reminds(run: Run[Ask]) -> str:
    """Waits for an input, and does something else if none comes within an hour."""
    waits = [asyncio.create_task(run.sleep(HOUR)), asyncio.create_task(run.receive(str))]
    done, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()
    said = done.pop().result()
    return await run.step("remind", note, "late") if said is None else await run.step("handle", note, said)


def step(ordinal: int, name: str, arguments: object, result: object) -> pb.EventBody:
    return pb.EventBody(
        step_completed=pb.StepCompleted(
            ordinal=ordinal,
            name=name,
            fingerprint=fingerprint_of(arguments),
            result_json=json_text(result, "result"),
            has_branches=True,
        )
    )


SLEPT = step(1, "sleep", HOUR.total_seconds(), END)
SAID = pb.EventBody(input_received=pb.InputReceived(sent_by=values.USER_ID, input_json='"hi"'))
IN_TIME: Events = [
    (SLEPT, BEGAN),
    (SAID, BEGAN + HOUR / 4),
    (step(2, "handle", arguments_of(("hi",), {}), "hi"), BEGAN + HOUR / 2),
]
TOO_LATE: Events = [
    (SLEPT, BEGAN),
    (step(2, "remind", arguments_of(("late",), {}), "late"), END + HOUR / 4),
    (SAID, END + HOUR / 2),
]
BY_ANOTHER_CLOCK: Events = [(SLEPT, BEGAN), (TOO_LATE[1][0], END - timedelta(milliseconds=1))]
"""The worker's clock was ahead of the authority's."""


@pytest.mark.parametrize(
    ("log", "result"), [(IN_TIME, "hi"), (TOO_LATE, "late"), (BY_ANOTHER_CLOCK, "late"), (IN_TIME[:1], "late")]
)
async def test_what_was_first_is_first_after_a_takeover(log: Events, result: str) -> None:
    runtime = asked()
    stored = runtime.logs[RUN]
    stored.attempt, stored.events = 2, [event for event, _ in log]
    for at in (at for _, at in log):
        stored.times.append(Timestamp())
        stored.times[-1].FromDatetime(at)
    async with working(runtime, reminds, Ask, str):
        await runtime.until(lambda: stored.finished)
    assert stored.events[-1].run_finished.result_json == f'"{result}"'
    assert (["late"] if len(log) == 1 else []) == CALLS


@pytest.mark.parametrize(("log", "result"), [(IN_TIME, "hi"), (TOO_LATE, "late"), (BY_ANOTHER_CLOCK, "late")])
async def test_what_was_first_is_first_in_a_replay(log: Events, result: str) -> None:
    (await replay(reminds, of(log, result), patience_ms=50)).check(whole=True)
    assert CALLS == []


def of(log: Events, result: str) -> RecordedRun:
    """A run of this work, which the authority recorded at these times."""
    spec = ev.RunSpec("a", ev.AgentSpec('{"question":"why"}'))
    bodies: list[tuple[ev.EventBody, datetime, int]] = [
        (ev.RunCreated(values.USER_ID, values.ORG_ID, spec), BEGAN, 0),
        (ev.RunStarted(values.WORKER_ID, 1, 1), BEGAN, 0),
    ]
    bodies += [(wire.body_from_wire(event), at, 0 if event is SAID else 1) for event, at in log]
    bodies.append((ev.RunFinished(ev.Outcome.SUCCEEDED, result_json=f'"{result}"'), END + HOUR, 1))
    return RecordedRun.of(
        wire.decode_event(wire.encode_event(values.RUN_ID, seq, ns_of(at), lease, wire.encode_body(body)))
        for seq, (body, at, lease) in enumerate(bodies, start=1)
    )
