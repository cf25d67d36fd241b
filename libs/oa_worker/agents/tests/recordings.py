"""Recorded runs for tests: what an agent did in memory, with the events that an authority writes around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oa_runlog import events as ev
from oa_runlog import wire
from oa_runlog.proof.replay import artifact_lines
from oa_runlog.state.reducer import replay
from oa_runlog.tests import values
from oa_runlog.tests.records import SIGNER, stored
from oa_wire.shapes import Shape, json_text
from oa_worker.agents.replays.recorded import RecordedRun
from oa_worker.agents.testing import Played


def recorded(
    played: Played[Any],
    value: object,
    *,
    inputs: Sequence[object] = (),
    agent: str = "a",
    upto: int | None = None,
    cancel_at: int | None = None,
) -> RecordedRun:
    """The run as it would stand in a log. `upto`: only so many events of its worker's work, and no end. `cancel_at`:
    after so many of them somebody asked for the end."""
    return RecordedRun.of(wire.decode_event(data) for data in stored_of(played, value, inputs, agent, upto, cancel_at))


def stored_of(
    played: Played[Any],
    value: object,
    inputs: Sequence[object] = (),
    agent: str = "a",
    upto: int | None = None,
    cancel_at: int | None = None,
) -> list[bytes]:
    """The same, as stored bytes."""
    spec = ev.RunSpec(agent, ev.AgentSpec(Shape(type(value), "serialization").write(value)))
    bodies: list[tuple[ev.EventBody, int]] = [(ev.RunCreated(values.USER_ID, values.ORG_ID, spec), 0)]
    bodies += [(ev.InputReceived(values.USER_ID, json_text(one, "input")), 0) for one in inputs]
    bodies.append((ev.RunStarted(values.WORKER_ID, 1, 1), 0))
    work = [wire.body_from_wire(event) for event in played.events][:upto]
    for number, body in enumerate(work):
        if number == cancel_at:
            bodies.append((ev.RunCancelRequested(values.USER_ID), 0))
        is_others = isinstance(body, ev.RequestAnswered | ev.RequestExpired | ev.ChildStarted | ev.ChildFinished)
        bodies.append((body, 0 if is_others else 1))
    if cancel_at == len(work):
        bodies.append((ev.RunCancelRequested(values.USER_ID), 0))
    if upto is None:
        bodies.append((wire.finish_from_wire(played.finish), 1))
    return stored([body for body, _ in bodies], leases=[lease for _, lease in bodies])


def artifact(file: Path, events: Sequence[bytes]) -> Path:
    """The replay artifact of a finished run, with its receipt."""
    state = replay(events)
    assert state is not None
    file.write_bytes(b"".join(artifact_lines(SIGNER.sign(state, "log_1"), events)))
    return file
