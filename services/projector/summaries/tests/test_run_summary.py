"""The projection is a pure function of the log: however the log is cut into batches, the summaries are the same."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_runlog import events as e
from oa_runlog.state import MAX_TOTAL, RunStatus
from oa_runlog.state.reducer import advance
from services.projector.projection.domain import LogRefused
from services.projector.summaries.domain import (
    VERSION,
    Plan,
    RunSummary,
    StoredSummary,
    plan_batch,
    project,
)
from services.projector.summaries.door import SummaryCodec
from services.projector.tests import histories as h
from services.projector.tests.rig import ENCODERS

CODEC = SummaryCodec()


def summary_of(events: list[e.RunEvent]) -> RunSummary:
    summary = None
    for event in events:
        summary = project(summary, event)
    assert summary is not None
    return summary


def apply(stored: dict[str, StoredSummary], events: list[e.RunEvent]) -> Plan:
    """What the store does with a plan."""
    plan = plan_batch(stored, events, ENCODERS)
    stored.update({write.summary.run_id: StoredSummary(write.summary, write.summary_hash) for write in plan.writes})
    return plan


def test_a_run_from_creation_to_finish() -> None:
    bodies: list[e.EventBody] = [
        h.created(),
        h.started(),
        h.text(b"abc"),
        e.ToolCall("c1", "grep"),
        e.Usage("m", 100, 20, 50),
        e.ExecutorLost(h.ulid("wrk", 1), 1, 1, requeued=True),
        h.started(2),
        h.text(b"de"),
        h.SUCCEEDED,
    ]
    events = h.history(7, bodies)
    assert summary_of(events) == RunSummary(
        run_id=h.ulid("run", 7),
        user_id=h.USER,
        org_id=h.ORG,
        title="git log --stat",
        adapter="exec",
        thread_id="",
        status=RunStatus.SUCCEEDED,
        latest_seq=9,
        create_ns=events[0].recorded_ns,
        start_ns=events[1].recorded_ns,
        finish_ns=events[8].recorded_ns,
        finish=h.SUCCEEDED,
        worker_id=h.ulid("wrk", 2),
        attempt=2,
        text_bytes=5,
        tool_calls=1,
        total_tokens=120,
    )


def test_the_newest_progress_of_the_newest_attempt_is_shown() -> None:
    bodies: list[e.EventBody] = [
        h.created(),
        h.started(),
        e.ProgressReported("1 of 3", 1, 3),
        e.ProgressReported("2 of 3", 2),
        e.ExecutorLost(h.ulid("wrk", 1), 1, 1, requeued=True),
        h.started(2),
        e.ProgressReported("begins"),
        h.SUCCEEDED,
    ]
    events = h.history(7, bodies)
    shown = [summary_of(events[:count]).progress for count in range(1, 9)]
    first, second, third = bodies[2], bodies[3], bodies[6]
    assert shown == [None, None, first, second, second, None, third, third]


def test_a_run_without_progress_has_the_document_of_before() -> None:
    """So the version stays: no stored document and no hash is another one, and no read model is built anew."""
    document = CODEC.encode(summary_of(h.whole_run(1)))
    assert hashlib.sha256(document).hexdigest() == "475be7ad82e7fdea8d465f5197c00a74fc290b5f9b165d7a03d4ce2700525d48"
    assert VERSION == 1


@given(h.interleavings(), st.data())
def test_however_the_log_is_split_the_documents_are_the_same(events: list[e.RunEvent], data: st.DataObject) -> None:
    whole: dict[str, StoredSummary] = {}
    apply(whole, events)
    split: dict[str, StoredSummary] = {}
    rest = list(events)
    while rest:
        cut = data.draw(st.integers(1, len(rest)), label="batch")
        apply(split, rest[:cut])
        rest = rest[cut:]
    assert split == whole


@given(h.interleavings(), st.data())
def test_what_comes_again_changes_nothing_and_is_no_drift(events: list[e.RunEvent], data: st.DataObject) -> None:
    stored: dict[str, StoredSummary] = {}
    apply(stored, events)
    before = dict(stored)
    start = data.draw(st.integers(0, len(events) - 1), label="start")
    plan = apply(stored, events[start:])
    assert plan == Plan((), (), (), ())
    assert stored == before


@given(h.histories(1))
def test_status_owner_and_totals_are_the_authoritys(events: list[e.RunEvent]) -> None:
    """The authority's own reducer comes to the same, event by event."""
    summary = summary_of(events)
    state = None
    for event in events:
        state = advance(state, event, b"")
    assert state is not None
    assert (summary.status, summary.latest_seq, summary.user_id, summary.org_id) == (
        state.status,
        state.latest_seq,
        state.user_id,
        state.org_id,
    )
    assert (summary.finish, summary.finish_ns, summary.create_ns) == (state.finish, state.finish_ns, state.create_ns)
    assert (summary.text_bytes, summary.tool_calls) == (state.totals.text_bytes, state.totals.tool_calls)


@given(h.histories(1))
def test_a_document_survives_the_wire(events: list[e.RunEvent]) -> None:
    summary = summary_of(events)
    assert CODEC.decode(CODEC.encode(summary)) == summary


def test_one_entry_for_each_run_and_topic_however_many_events_a_batch_has() -> None:
    events = [*h.whole_run(1), *h.whole_run(2, h.OTHER_USER)]
    plan = plan_batch({}, events, ENCODERS)
    assert [(entry.topic, entry.about) for entry in plan.entries() if entry.topic.endswith(":runs")] == [
        (f"org:{h.ORG}:runs", h.ulid("run", 1)),
        (f"org:{h.ORG}:runs", h.ulid("run", 2)),
        (f"user:{h.USER}:runs", h.ulid("run", 1)),
        (f"user:{h.OTHER_USER}:runs", h.ulid("run", 2)),
    ]
    for write in plan.writes:
        assert write.summary_hash == hashlib.sha256(write.document).digest()
        assert CODEC.decode(write.document).status is RunStatus.SUCCEEDED


def test_a_service_accounts_run_is_on_its_orgs_topic_only() -> None:
    plan = plan_batch({}, h.whole_run(1, user_id=h.ulid("sva", 1)), ENCODERS)
    assert {entry.topic for entry in plan.entries()} == {f"org:{h.ORG}:runs"}


def test_whoever_lost_the_place_in_an_org_is_told_nothing_of_its_runs() -> None:
    plan = plan_batch({}, [*h.whole_run(1), *h.whole_run(2, h.OTHER_USER)], ENCODERS)
    assert plan.places == {(h.USER, h.ORG), (h.OTHER_USER, h.ORG)}
    topics = {entry.topic for entry in plan.entries({(h.USER, h.ORG), (h.OTHER_USER, h.OTHER_ORG)})}
    other = h.OTHER_USER
    assert topics == {f"org:{h.ORG}:runs", f"user:{other}:runs", f"user:{other}:notifications"}


def test_other_bytes_at_the_same_seq_are_drift_and_the_stored_document_stays() -> None:
    events = h.whole_run(1)
    stored: dict[str, StoredSummary] = {}
    apply(stored, events[:4])
    forged = replace(stored[h.ulid("run", 1)].summary, title="something else")
    stored[h.ulid("run", 1)] = StoredSummary(forged, hashlib.sha256(CODEC.encode(forged)).digest())
    plan = apply(stored, events)
    assert [(drift.run_id, drift.seq) for drift in plan.drifts] == [(h.ulid("run", 1), 4)]
    assert CODEC.decode(plan.drifts[0].computed_document).title == "git log --stat"
    assert plan.drifts[0].stored_hash != plan.drifts[0].computed_hash
    # What is new goes on from what is stored: nothing is overwritten silently.
    assert stored[h.ulid("run", 1)].summary.title == "something else"
    assert stored[h.ulid("run", 1)].summary.latest_seq == len(events)


@pytest.mark.parametrize("missing", range(5))
def test_a_hole_in_a_run_is_refused(missing: int) -> None:
    events = h.whole_run(1)
    del events[missing]
    with pytest.raises(LogRefused) as caught:
        plan_batch({}, events, ENCODERS)
    assert caught.value.cause == "run_hole"


def test_an_event_that_the_state_machine_does_not_allow_is_refused() -> None:
    events = h.history(1, [h.created(), h.SUCCEEDED])
    with pytest.raises(LogRefused) as caught:
        plan_batch({}, events, ENCODERS)
    assert caught.value.cause == "invalid_event"


def test_an_owner_that_has_no_topic_is_refused() -> None:
    with pytest.raises(LogRefused) as caught:
        plan_batch({}, h.whole_run(1, org_id="org_nobody"), ENCODERS)
    assert caught.value.cause == "invalid_event"


def test_totals_stop_where_json_stops() -> None:
    bodies: list[e.EventBody] = [h.created(), h.started(), e.Usage("m", MAX_TOTAL, 0), e.Usage("m", 5, 5)]
    assert summary_of(h.history(1, bodies)).total_tokens == MAX_TOTAL


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        (e.RunSpec("exec", e.ExecSpec(("echo", "a b"))), "echo 'a b'"),
        (e.RunSpec("codex", e.PromptSpec("x" * 500)), "x" * 199 + "…"),
        (e.RunSpec("codex", e.PromptSpec("text"), title="mine"), "mine"),
    ],
)
def test_the_title_comes_from_the_spec(spec: e.RunSpec, title: str) -> None:
    assert summary_of(h.history(1, [h.created(spec=spec)])).title == title
