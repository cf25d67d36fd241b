"""Every outcome of every command, and the order in which an append is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.authority.commands import (
    Append,
    AssignRun,
    CancelDeadline,
    Command,
    LoseLease,
    RequestCancel,
    SendInput,
    SettleRequest,
)
from oa_runlog.authority.decide import Accepted, KnownKey, Unchanged, decide
from oa_runlog.events import (
    AgentSpec,
    CheckpointSaved,
    EventBody,
    EventType,
    ExecSpec,
    ExecutorLost,
    Outcome,
    PromptSpec,
    RequestAnswered,
    RunCancelRequested,
    RunCreated,
    RunFinished,
    RunSpec,
    RunStarted,
    TextDelta,
    TextStream,
)
from oa_runlog.state import RunState, RunStatus
from oa_runlog.tests.deciding import (
    CANCELED,
    FAILED,
    LIMITS,
    NOW,
    SECOND,
    SPEC,
    SUCCEEDED,
    TEXT,
    accepted,
    append,
    create,
    refused,
    types,
)
from oa_runlog.tests.values import ORG_ID, OTHER_WORKER_ID, RUN_ID, USER_ID, WORKER_ID

CREATED = accepted(None, create())
RUNNING = accepted(CREATED, AssignRun(RUN_ID, WORKER_ID))
CANCELING = accepted(RUNNING, RequestCancel(RUN_ID, ORG_ID, USER_ID, "enough"))
DONE = accepted(RUNNING, append(SUCCEEDED))
LOST = accepted(RUNNING, LoseLease(RUN_ID, WORKER_ID, 1))


# ------------------------------------------------------------------------------------------------- create


def test_a_run_is_created_with_its_owner_and_its_title() -> None:
    decision = decide(None, create(), LIMITS, NOW)
    assert isinstance(decision, Accepted)
    (event,) = decision.events
    body = wire.decode_event(event.data).body
    assert body == RunCreated(USER_ID, ORG_ID, replace(SPEC, title="git log"))
    state = decision.state
    assert (state.status, state.latest_seq, state.org_id, state.user_id) == (RunStatus.CREATED, 1, ORG_ID, USER_ID)
    assert (state.create_ns, state.chain_head) == (NOW, event.chain)


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        (RunSpec("exec", ExecSpec(("echo", "a b"))), "echo 'a b'"),
        (RunSpec("codex", PromptSpec("  Fix it\nplease")), "Fix it"),
        (RunSpec("codex", PromptSpec("   ")), "codex"),
        (RunSpec("exec", ExecSpec(("x" * 300,))), "x" * 199 + "…"),
        (RunSpec("exec", ExecSpec(("a",)), title="Mine"), "Mine"),
    ],
    ids=["argv", "prompt", "blank", "long", "given"],
)
def test_a_run_without_a_title_gets_one(spec: RunSpec, title: str) -> None:
    decision = decide(None, create(spec), LIMITS, NOW)
    assert isinstance(decision, Accepted)
    body = wire.decode_event(decision.events[0].data).body
    assert isinstance(body, RunCreated)
    assert body.spec.title == title


def test_the_same_create_again_gives_the_first_run_and_another_one_under_its_key_is_refused() -> None:
    known = KnownKey("run_first", create().fingerprint, 1, 1)
    assert decide(None, create(), LIMITS, NOW, known) == Unchanged("run_first", 1, 1)
    other = create(RunSpec("exec", ExecSpec(("rm",))))
    assert refused(None, other, known=known).reason == "idempotency_conflict"


def test_a_run_has_the_retention_class_that_it_asks_for_if_there_is_one() -> None:
    limits = replace(LIMITS, retention_classes=frozenset({"default", "short"}))
    for named, meant in (("", "default"), ("default", "default"), ("short", "short")):
        decision = decide(None, create(replace(SPEC, retention_class=named)), limits, NOW)
        assert isinstance(decision, Accepted)
        body = wire.decode_event(decision.events[0].data).body
        assert isinstance(body, RunCreated)
        assert (body.spec.retention_class, body.spec.retention) == (named, meant)
    unknown = create(replace(SPEC, retention_class="audit"))
    refusal = decide(None, unknown, limits, NOW)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.field) == ("invalid_value", "spec.retention_class")
    assert refusal.metadata == {"retention_classes": "default, short"}
    # A class that is gone meanwhile does not change the answer to a repetition.
    known = KnownKey("run_first", unknown.fingerprint, 1, 1)
    assert decide(None, unknown, limits, NOW, known) == Unchanged("run_first", 1, 1)


def test_a_spec_that_is_too_large_is_refused() -> None:
    refusal = refused(None, create(RunSpec("codex", PromptSpec("x" * 1001))))
    assert (refusal.reason, refusal.field) == ("payload_too_large", "spec")
    assert refusal.metadata == {"limit_bytes": "1000"}


def test_what_people_send_to_a_run_is_named_when_its_event_is_too_large() -> None:
    large = "x" * 1001
    answer = SettleRequest.of(RUN_ID, ORG_ID, RequestAnswered("r1", "", large, USER_ID))
    for command, field in (
        (SendInput.of(RUN_ID, ORG_ID, USER_ID, "k", f'"{large}"'), "input_json"),
        (answer, "text"),
    ):
        refusal = refused(RUNNING, command)
        assert (refusal.reason, refusal.field) == ("payload_too_large", field)


def test_an_agents_input_has_a_limit_of_its_own() -> None:
    limits = replace(LIMITS, max_input_bytes=20)
    at_the_limit = RunSpec("support", AgentSpec('"' + "x" * 16 + 'é"'))
    assert isinstance(decide(None, create(at_the_limit), limits, NOW), Accepted)
    beyond = decide(None, create(RunSpec("support", AgentSpec('"' + "x" * 17 + 'é"'))), limits, NOW)
    assert isinstance(beyond, Refusal)
    assert (beyond.reason, beyond.field) == ("payload_too_large", "spec.agent.input_json")
    assert beyond.metadata == {"limit_bytes": "20"}


# ------------------------------------------------------------------------------------------------- append, in order


def test_an_agents_result_has_a_limit_of_its_own() -> None:
    limits = replace(LIMITS, max_result_bytes=20)
    for size, fits in ((20, True), (21, False)):
        finish = RunFinished(Outcome.SUCCEEDED, result_json="1" * size)
        decision = decide(RUNNING, append(TEXT, finish), limits, NOW)
        assert isinstance(decision, Accepted if fits else Refusal)
        if isinstance(decision, Refusal):
            assert (decision.reason, decision.field) == ("payload_too_large", "events[1].run_finished.result_json")
        else:
            assert decision.state.finish == finish


def test_a_checkpoint_has_a_limit_of_its_own() -> None:
    limits = replace(LIMITS, max_checkpoint_bytes=20)
    for size, fits in ((20, True), (21, False)):
        decision = decide(RUNNING, append(TEXT, CheckpointSaved(1, "1" * size)), limits, NOW)
        assert isinstance(decision, Accepted if fits else Refusal)
        if isinstance(decision, Refusal):
            assert (decision.reason, decision.field) == ("payload_too_large", "events[1].checkpoint_saved.state_json")
            assert decision.metadata == {"limit_bytes": "20"}


def test_a_batch_is_numbered_and_chained() -> None:
    decision = decide(RUNNING, append(TEXT, TEXT, SUCCEEDED), LIMITS, NOW)
    assert isinstance(decision, Accepted)
    assert [event.seq for event in decision.events] == [3, 4, 5]
    assert (decision.state.status, decision.state.totals.text_bytes) == (RunStatus.SUCCEEDED, 2)
    assert decision.state.chain_head == decision.events[-1].chain


OVERSIZED = TextDelta(TextStream.STDOUT, b"x" * 1001)
KNOWN = KnownKey(RUN_ID, append().fingerprint, 2, 1)
# Each append has every fault that comes after its own: so each line shows what is looked at first.
IN_ORDER: list[tuple[RunState | None, Append, KnownKey | None, str]] = [
    (None, append(), KNOWN, "not_found"),
    (DONE, append(OVERSIZED, org="org_2", epoch=9, expected_seq=1), KNOWN, "not_found"),
    (DONE, append(OVERSIZED, epoch=9, expected_seq=1), KNOWN, "idempotency_conflict"),
    (DONE, append(OVERSIZED, epoch=9, expected_seq=1), None, "stale_epoch"),
    (DONE, append(OVERSIZED, worker=OTHER_WORKER_ID, expected_seq=1), None, "stale_epoch"),
    (DONE, append(OVERSIZED, RunCancelRequested("usr"), expected_seq=1), None, "seq_conflict"),
    (DONE, append(OVERSIZED, RunCancelRequested("usr")), None, "event_reserved"),
    (DONE, append(OVERSIZED), None, "invalid_transition"),
    (RUNNING, append(*[OVERSIZED] * 30), None, "payload_too_large"),
    (RUNNING, append(*[TEXT] * 21), None, "publish_rate_limited"),
]


@pytest.mark.parametrize(("state", "command", "known", "reason"), IN_ORDER, ids=[case[3] for case in IN_ORDER])
def test_an_append_is_looked_at_in_the_documented_order(
    state: RunState | None, command: Append, known: KnownKey | None, reason: str
) -> None:
    assert refused(state, command, known=known).reason == reason


def test_a_known_key_answers_with_its_seqs_whatever_has_become_of_the_run() -> None:
    known = KnownKey(RUN_ID, append(epoch=1).fingerprint, 7, 3)
    for state in (RUNNING, DONE, LOST, CANCELING):
        assert decide(state, append(epoch=5, expected_seq=99), LIMITS, NOW, known) == Unchanged(RUN_ID, 7, 9)


def test_the_current_epoch_is_told() -> None:
    refusal = refused(RUNNING, append(epoch=0))
    assert (refusal.field, refusal.metadata) == ("lease_epoch", {"current_epoch": "1"})
    assert refused(CREATED, append(epoch=0)).reason == "stale_epoch"


def test_the_expected_seq_must_be_the_present_one() -> None:
    assert accepted(RUNNING, append(expected_seq=2)).latest_seq == 3
    refusal = refused(RUNNING, append(expected_seq=1))
    assert (refusal.reason, refusal.metadata) == ("seq_conflict", {"current_seq": "2"})
    assert refused(RUNNING, append(expected_seq=0)).reason == "seq_conflict"


@pytest.mark.parametrize(
    "body", [RunCreated("u", "o", SPEC), RunStarted("w", 1, 1), RunCancelRequested("u"), ExecutorLost("w", 1, 1, True)]
)
def test_only_the_authority_writes_what_is_reserved(body: EventBody) -> None:
    refusal = refused(RUNNING, append(TEXT, body))
    assert (refusal.reason, refusal.field) == ("event_reserved", "events[1]")


def test_an_illegal_transition_says_what_is_legal() -> None:
    refusal = refused(RUNNING, append(SUCCEEDED, TEXT))
    assert (refusal.reason, refusal.field) == ("invalid_transition", "events[1]")
    assert refusal.metadata == {"from": "succeeded", "event": "text.delta", "allowed": ""}
    refusal = refused(RUNNING, append(CANCELED))
    assert (refusal.metadata["from"], refusal.metadata["event"]) == ("running", "run.finished:canceled")
    assert "run.finished:failed" in refusal.metadata["allowed"].split(",")


def _of_size(size: int) -> TextDelta:
    """Text whose event body has `size` bytes (between 132 and 16 000)."""
    body = TextDelta(TextStream.STDOUT, b"x" * (size - 8))
    assert len(wire.encode_body(body)) == size
    return body


def test_the_limits_of_sizes_are_exact() -> None:
    assert accepted(RUNNING, append(_of_size(1000))).latest_seq == 3
    assert refused(RUNNING, append(TEXT, _of_size(1001))).field == "events[1]"
    assert accepted(RUNNING, append(_of_size(750), _of_size(750))).latest_seq == 4
    assert refused(RUNNING, append(_of_size(750), _of_size(751))).field == "events"


def test_a_batch_is_all_or_nothing() -> None:
    before = RUNNING
    refused(before, append(TEXT, TEXT, OVERSIZED))
    assert accepted(before, append(TEXT)).latest_seq == before.latest_seq + 1


# ------------------------------------------------------------------------------------------------- pace


def test_the_pace_holds_and_says_how_long_to_wait() -> None:
    full = accepted(RUNNING, append(*[TEXT] * 20))
    refusal = refused(full, append(TEXT, TEXT))
    assert (refusal.reason, refusal.retry_after_ms) == ("publish_rate_limited", 200)
    wait_ns = refusal.retry_after_ms * 1_000_000
    assert refused(full, append(TEXT, TEXT), NOW + wait_ns - 1).reason == "publish_rate_limited"
    later = accepted(full, append(TEXT, TEXT), NOW + wait_ns)
    assert refused(later, append(TEXT), NOW + wait_ns).reason == "publish_rate_limited"


def test_after_a_pause_the_whole_burst_is_there_again() -> None:
    full = accepted(RUNNING, append(*[TEXT] * 20))
    assert refused(full, append(*[TEXT] * 20), NOW + SECOND).reason == "publish_rate_limited"
    assert accepted(full, append(*[TEXT] * 20), NOW + 2 * SECOND).latest_seq == 42
    assert refused(RUNNING, append(*[TEXT] * 21), NOW + 99 * SECOND).reason == "publish_rate_limited"


@pytest.mark.parametrize("back", [SECOND, 60 * SECOND])
def test_a_clock_that_goes_back_does_not_lock_a_run(back: int) -> None:
    full = accepted(RUNNING, append(*[TEXT] * 20))
    refusal = refused(full, append(TEXT), NOW - back)
    assert refusal.retry_after_ms == 100, "as if the credit had just been used up"


# ------------------------------------------------------------------------------------------------- finish


def test_a_second_finish_with_the_same_outcome_changes_nothing_and_with_another_is_refused() -> None:
    assert decide(DONE, append(SUCCEEDED, key="again"), LIMITS, NOW) == Unchanged(RUN_ID, 3, 3)
    refusal = refused(DONE, append(FAILED, key="again"))
    assert (refusal.reason, refusal.metadata) == ("already_finished", {"outcome": "succeeded"})


@pytest.mark.parametrize("finish", [SUCCEEDED, FAILED, CANCELED], ids=lambda finish: str(finish.outcome))
def test_a_run_may_end_in_any_way_after_a_cancel_was_requested(finish: RunFinished) -> None:
    state = accepted(CANCELING, append(finish))
    assert (state.status, state.finish, state.finish_ns) == (RunStatus(str(finish.outcome)), finish, NOW)


# ------------------------------------------------------------------------------------------------- leases


def test_an_assignment_raises_the_epoch_and_is_recorded_as_the_start() -> None:
    assert (RUNNING.lease_epoch, RUNNING.attempt, RUNNING.holder) == (1, 1, WORKER_ID)
    again = accepted(LOST, AssignRun(RUN_ID, OTHER_WORKER_ID))
    assert (again.lease_epoch, again.attempt, again.holder, again.status) == (2, 2, OTHER_WORKER_ID, RunStatus.RUNNING)


@pytest.mark.parametrize(
    ("state", "reason"),
    [(None, "not_found"), (RUNNING, "stale_epoch"), (CANCELING, "stale_epoch"), (DONE, "invalid_transition")],
    ids=["absent", "running", "canceling", "done"],
)
def test_a_run_that_does_not_wait_is_not_assigned(state: RunState | None, reason: str) -> None:
    assert refused(state, AssignRun(RUN_ID, OTHER_WORKER_ID)).reason == reason


def test_a_lost_worker_is_fenced_at_once_and_for_ever() -> None:
    assert types(RUNNING, LoseLease(RUN_ID, WORKER_ID, 1)) == [EventType.EXECUTOR_LOST]
    assert (LOST.holder, LOST.status) == ("", RunStatus.RUNNING)
    assert refused(LOST, append(epoch=1)).reason == "stale_epoch"
    again = accepted(LOST, AssignRun(RUN_ID, WORKER_ID))
    assert refused(again, append(epoch=1)).reason == "stale_epoch"
    assert accepted(again, append(epoch=2)).latest_seq == 5


@pytest.mark.parametrize(("worker", "epoch"), [(OTHER_WORKER_ID, 1), (WORKER_ID, 0), (WORKER_ID, 2)])
def test_a_lease_that_is_not_the_present_one_can_not_be_lost(worker: str, epoch: int) -> None:
    assert decide(RUNNING, LoseLease(RUN_ID, worker, epoch), LIMITS, NOW) == Unchanged(RUN_ID, 2, 2)
    assert isinstance(decide(LOST, LoseLease(RUN_ID, WORKER_ID, 1), LIMITS, NOW), Unchanged)


def test_a_run_is_requeued_three_times_and_then_fails() -> None:
    state = CREATED
    for attempt in range(1, 5):
        state = accepted(state, AssignRun(RUN_ID, WORKER_ID))
        assert state.attempt == attempt
        state = accepted(state, LoseLease(RUN_ID, WORKER_ID, attempt))
    assert state.status is RunStatus.FAILED
    assert state.finish is not None
    assert (state.finish.outcome, state.finish.reason) == (Outcome.FAILED, "executor_lost")
    assert refused(state, append(epoch=4)).reason == "stale_epoch"


# ------------------------------------------------------------------------------------------------- cancel


@pytest.mark.parametrize("state", [CREATED, LOST], ids=["never started", "requeued"])
def test_a_run_that_nobody_holds_is_canceled_at_once(state: RunState) -> None:
    command = RequestCancel(RUN_ID, ORG_ID, USER_ID, "enough")
    assert types(state, command) == [EventType.RUN_CANCEL_REQUESTED, EventType.RUN_FINISHED]
    assert accepted(state, command).status is RunStatus.CANCELED


def test_a_held_run_is_asked_to_end_once() -> None:
    assert (CANCELING.status, CANCELING.cancel_reason, CANCELING.holder) == (RunStatus.CANCELING, "enough", WORKER_ID)
    again = RequestCancel(RUN_ID, ORG_ID, USER_ID, "really")
    assert decide(CANCELING, again, LIMITS, NOW) == Unchanged(RUN_ID, 3, 3)
    assert decide(DONE, again, LIMITS, NOW) == Unchanged(RUN_ID, 3, 3)
    assert refused(RUNNING, RequestCancel(RUN_ID, "org_2", USER_ID)).reason == "not_found"


def test_the_deadline_ends_what_the_worker_did_not() -> None:
    deadline_ns = LIMITS.cancel_deadline_ms * 1_000_000
    command = CancelDeadline(RUN_ID)
    assert isinstance(decide(CANCELING, command, LIMITS, NOW + deadline_ns - 1), Unchanged)
    state = accepted(CANCELING, command, NOW + deadline_ns)
    assert state.finish is not None
    assert (state.status, state.finish.reason) == (RunStatus.CANCELED, "cancel_deadline")
    assert refused(state, append(CANCELED)).reason == "stale_epoch", "the lease was taken back"
    for other in (RUNNING, DONE, CREATED, state):
        assert isinstance(decide(other, command, LIMITS, NOW + 2 * deadline_ns), Unchanged)


def test_a_worker_lost_while_canceling_ends_the_run_canceled() -> None:
    lose = LoseLease(RUN_ID, WORKER_ID, 1)
    assert types(CANCELING, lose) == [EventType.EXECUTOR_LOST, EventType.RUN_FINISHED]
    assert accepted(CANCELING, lose).status is RunStatus.CANCELED


def _needs_a_run() -> Sequence[Command]:
    return (append(), AssignRun(RUN_ID, "w"), RequestCancel(RUN_ID, ORG_ID, "u"), LoseLease(RUN_ID, "w", 1))


@pytest.mark.parametrize("command", [*_needs_a_run(), CancelDeadline(RUN_ID)], ids=lambda c: type(c).__name__)
def test_nothing_happens_to_a_run_that_does_not_exist(command: Command) -> None:
    assert refused(None, command).reason == "not_found"
