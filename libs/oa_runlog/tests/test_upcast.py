"""Events of older schemas are read as today's; newer ones are refused, never guessed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.events import SCHEMA_VERSION, Outcome, RunCreated, RunEvent, RunFinished
from oa_runlog.proof.chain import chain_over
from oa_runlog.state import RunStatus
from oa_runlog.state.reducer import replay
from oa_runlog.wire import upcast as upcasting
from oa_runlog.wire.upcast import STEPS, Step, upcast
from openagents.runtime.v1 import event_pb2

RUN = "run_01K0000000000000000000000A"
NOON_S = 1_795_608_000


def _event(version: int, seq: int = 1, **body: object) -> event_pb2.RunEvent:
    message = event_pb2.RunEvent(run_id=RUN, seq=seq, schema_version=version, body=event_pb2.EventBody(**body))  # type: ignore[arg-type]
    message.recorded_time.seconds = NOON_S
    return message


def _created(version: int, title: str = "") -> event_pb2.RunEvent:
    spec = event_pb2.RunSpec(adapter="exec", title=title, exec=event_pb2.ExecSpec(argv=["true"]))
    return _event(version, run_created=event_pb2.RunCreated(user_id="usr_a", org_id="org_a", spec=spec))


def _finished(version: int, seq: int) -> event_pb2.RunEvent:
    message = _event(version, seq, run_finished=event_pb2.RunFinished(outcome=event_pb2.RUN_OUTCOME_SUCCEEDED))
    message.lease_epoch = 1
    return message


def _started(version: int, attempt: int) -> event_pb2.RunEvent:
    return _event(version, 2, run_started=event_pb2.RunStarted(worker_id="wrk_a", lease_epoch=1, attempt=attempt))


def _attempts_from_one(event: event_pb2.RunEvent) -> None:
    """A version that never was, before the first: its attempts counted from 0."""
    if event.body.WhichOneof("kind") == "run_started":
        event.body.run_started.attempt += 1


def _mark(word: str) -> Step:
    def step(event: event_pb2.RunEvent) -> None:
        event.body.run_created.spec.title += word

    return step


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[int, Step]:
    """Steps for this test alone; starts without any."""
    mine: dict[int, Step] = {}
    monkeypatch.setattr(upcasting, "STEPS", mine)
    return mine


def _refusal(event: event_pb2.RunEvent) -> Refusal:
    with pytest.raises(Refusal) as caught:
        wire.decode_event(event.SerializeToString())
    return caught.value


def test_every_version_that_was_ever_written_can_be_read() -> None:
    assert set(STEPS) == set(range(1, SCHEMA_VERSION)), "raising SCHEMA_VERSION takes a step out of the one before"


def test_todays_events_are_read_as_they_are() -> None:
    message = _created(SCHEMA_VERSION)
    assert upcast(message) is message


def test_an_old_event_is_read_as_today_s(steps: dict[int, Step]) -> None:
    steps[0] = _attempts_from_one
    assert wire.decode_event(_started(0, 0).SerializeToString()) == wire.event_from_wire(_started(1, 1))


def test_what_was_stored_stays_as_it_is(steps: dict[int, Step]) -> None:
    steps[0] = _attempts_from_one
    stored = _started(0, 4)
    before = stored.SerializeToString(deterministic=True)
    assert upcast(stored).body.run_started.attempt == 5
    assert stored.SerializeToString(deterministic=True) == before


def test_steps_are_taken_one_after_the_other(steps: dict[int, Step], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upcasting, "SCHEMA_VERSION", 3)
    steps |= {2: _mark("c"), 0: _mark("a"), 1: _mark("b")}
    read = [upcast(_created(version, "-")) for version in range(4)]
    assert [message.body.run_created.spec.title for message in read] == ["-abc", "-bc", "-c", "-"]
    assert {message.schema_version for message in read} == {3}


@pytest.mark.parametrize(
    ("version", "known", "readable"),
    [
        (SCHEMA_VERSION + 1, {}, f"reads {SCHEMA_VERSION}"),
        (SCHEMA_VERSION + 1, {0: _mark("")}, f"reads 0 to {SCHEMA_VERSION}"),
        (0, {}, f"reads {SCHEMA_VERSION}"),
    ],
    ids=["newer", "newer, with steps", "older than any step"],
)
def test_other_versions_are_refused(
    steps: dict[int, Step], version: int, known: Mapping[int, Step], readable: str
) -> None:
    steps |= known
    refusal = _refusal(_created(version))
    assert (refusal.reason, refusal.field) == ("unsupported_schema_version", "schema_version")
    assert refusal.message.endswith(readable)


def test_a_hole_between_steps_is_refused(steps: dict[int, Step], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upcasting, "SCHEMA_VERSION", 2)
    steps[0] = _mark("a")
    assert _refusal(_created(0)).reason == "unsupported_schema_version"


def test_what_a_step_makes_is_checked_like_any_event(steps: dict[int, Step]) -> None:
    """An old event that today's rules would not take is a step's duty to mend: it is not waved through."""
    steps[0] = lambda event: event.body.run_created.spec.ClearField("adapter")
    refusal = _refusal(_created(0))
    assert (refusal.reason, refusal.field) == ("missing_field", "body.run_created.spec.adapter")


def test_a_run_of_an_old_version_replays_and_its_chain_is_over_the_stored_bytes(steps: dict[int, Step]) -> None:
    steps[0] = _attempts_from_one
    messages = [_created(0), _started(0, 0), _finished(1, 3)]
    stored = [message.SerializeToString(deterministic=True) for message in messages]
    state = replay(stored)
    assert state is not None
    assert (state.status, state.attempt) == (RunStatus.SUCCEEDED, 1)
    assert state.chain_head == chain_over(RUN, stored)
    read_anew = [upcast(message).SerializeToString(deterministic=True) for message in messages]
    assert state.chain_head != chain_over(RUN, read_anew)


def test_without_its_step_the_same_run_is_not_read() -> None:
    with pytest.raises(Refusal, match="unsupported_schema_version"):
        replay([_created(0).SerializeToString()])


def test_what_is_written_is_of_todays_version() -> None:
    body = wire.encode_body(RunFinished(Outcome.FAILED))
    stored = event_pb2.RunEvent.FromString(wire.encode_event(RUN, 1, NOON_S * 10**9, 0, body))
    assert stored.schema_version == SCHEMA_VERSION
    assert isinstance(wire.event_from_wire(stored), RunEvent)
    assert isinstance(wire.event_from_wire(_created(SCHEMA_VERSION)).body, RunCreated)
