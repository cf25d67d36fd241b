"""What a run's policy comes to: when it may start, when its time is over, and whether a failure is tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.clock import LAST_NS
from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.authority.commands import AssignRun, CancelDeadline, CreateRun, LoseLease, RequestCancel, TimeLimit
from oa_runlog.authority.decide import Accepted, KnownKey, Unchanged, decide
from oa_runlog.authority.retries import DAY_MS, LASTING, pause_ms
from oa_runlog.events import (
    AttemptFailed,
    ExecSpec,
    Outcome,
    QueuePolicy,
    RetryPolicy,
    RunFinished,
    RunSpec,
)
from oa_runlog.state import RunState, RunStatus
from oa_runlog.state.reducer import replay
from oa_runlog.tests.deciding import LIMITS, NOW, SECOND, TEXT, accepted, append, refused, types
from oa_runlog.tests.values import ORG_ID, OTHER_WORKER_ID, RUN_ID, USER_ID, WORKER_ID

MS = 1_000_000
FAILED = RunFinished(Outcome.FAILED, "agent_error", "ValueError: no")
ASSIGN = AssignRun(RUN_ID, WORKER_ID)
TIME_LIMIT = TimeLimit(RUN_ID)


def created(**queue: Any) -> RunState:
    spec = RunSpec("exec", ExecSpec(("true",)), queue=QueuePolicy(**queue))
    return accepted(None, CreateRun.of(RUN_ID, ORG_ID, USER_ID, spec, "create"))


def unchanged(state: RunState, *commands: Any, now_ns: int = NOW) -> None:
    for command in commands:
        assert isinstance(decide(state, command, LIMITS, now_ns), Unchanged)


# ------------------------------------------------------------------------------------------------- not before


def test_no_worker_gets_a_run_before_its_time() -> None:
    state = created(not_before_ns=NOW + 5 * SECOND)
    early = refused(state, ASSIGN, NOW + 5 * SECOND - 1)
    assert (early.reason, early.field) == ("invalid_transition", "run_id")
    assert accepted(state, ASSIGN, NOW + 5 * SECOND).is_leased


def test_a_time_counts_in_whole_microseconds_as_databases_do() -> None:
    assert created(not_before_ns=NOW + 1_999).not_before_ns == NOW + 1_000


@pytest.mark.parametrize(("given_ns", "counts_ns"), [(-62_135_596_800 * SECOND, 0), (LAST_NS + SECOND - 1, LAST_NS)])
def test_a_time_before_all_others_and_one_after_them_are_times(given_ns: int, counts_ns: int) -> None:
    assert created(not_before_ns=given_ns).not_before_ns == counts_ns


# ------------------------------------------------------------------------------------------------- timeouts


@pytest.mark.parametrize(("not_before_ns", "begins_ns"), [(None, NOW), (NOW - SECOND, NOW), (NOW + 9 * SECOND,) * 2])
def test_a_run_that_nobody_starts_in_time_fails(not_before_ns: int | None, begins_ns: int) -> None:
    state = created(start_timeout_ms=2_000, not_before_ns=not_before_ns)
    unchanged(state, TIME_LIMIT, now_ns=begins_ns + 2 * SECOND - 1)
    ended = accepted(state, TIME_LIMIT, begins_ns + 2 * SECOND)
    assert ended.status is RunStatus.FAILED
    text = "no worker started it within 2000 ms; start one, or give it more time"
    assert ended.finish == RunFinished(Outcome.FAILED, "start_timeout", text)


def test_the_start_ends_the_start_timeout_and_begins_the_run_timeout() -> None:
    state = accepted(created(start_timeout_ms=1_000, run_timeout_ms=60_000), ASSIGN, NOW + SECOND // 2)
    unchanged(state, TIME_LIMIT, now_ns=NOW + 60 * SECOND)
    ended = accepted(state, TIME_LIMIT, NOW + 60 * SECOND + SECOND // 2)
    text = "it did not end within 60000 ms of its first start; give it more time"
    assert (ended.finish, ended.fenced) == (RunFinished(Outcome.FAILED, "run_timeout", text), True)
    late = refused(ended, append(TEXT), NOW + 61 * SECOND)
    assert late.reason == "stale_epoch", "its worker has it no more"


def test_a_started_run_without_a_run_timeout_has_no_deadline() -> None:
    state = accepted(created(start_timeout_ms=1), ASSIGN)
    assert state.deadline_ns is None
    unchanged(state, TIME_LIMIT, now_ns=NOW + 10**6 * SECOND)


def test_the_run_timeout_goes_on_over_attempts() -> None:
    first = accepted(created(run_timeout_ms=60_000), ASSIGN)
    lost = accepted(first, LoseLease(RUN_ID, WORKER_ID, 1), NOW + 30 * SECOND)
    second = accepted(lost, AssignRun(RUN_ID, OTHER_WORKER_ID), NOW + 40 * SECOND)
    assert first.deadline_ns == lost.deadline_ns == second.deadline_ns == NOW + 60 * SECOND
    assert accepted(lost, TIME_LIMIT, NOW + 60 * SECOND).status is RunStatus.FAILED


def test_a_run_that_is_to_end_anyway_is_left_to_its_cancel() -> None:
    state = accepted(accepted(created(run_timeout_ms=1), ASSIGN), RequestCancel(RUN_ID, ORG_ID, USER_ID))
    unchanged(state, TIME_LIMIT, now_ns=NOW + SECOND)
    ended = accepted(state, CancelDeadline(RUN_ID), NOW + 10 * SECOND)
    unchanged(ended, TIME_LIMIT, now_ns=NOW + 10 * SECOND)


def test_a_time_beyond_all_times_is_the_last_one() -> None:
    assert created(not_before_ns=LAST_NS, start_timeout_ms=31_536_000_000).deadline_ns == LAST_NS


# ------------------------------------------------------------------------------------------------- retries


def retried(**policy: Any) -> RunState:
    """A running run with this retry policy."""
    return accepted(created(retry=RetryPolicy(**policy)), ASSIGN)


def test_a_failure_is_an_attempt_and_the_run_waits_for_the_next() -> None:
    state = retried(max_failures=3, initial_delay_ms=500)
    command = append(TEXT, FAILED)
    decision = decide(state, command, LIMITS, NOW)
    assert isinstance(decision, Accepted)
    work, ended = (wire.decode_event(event.data) for event in decision.events)
    assert (work.lease_epoch, work.body) == (1, TEXT)
    assert (ended.lease_epoch, ended.body) == (0, AttemptFailed(WORKER_ID, 1, 1, FAILED, NOW + 500 * MS))
    after = decision.state
    assert (after.status, after.is_leased, after.failures) == (RunStatus.RUNNING, False, 1)
    assert refused(after, append(TEXT, key="more")).reason == "stale_epoch"
    known = KnownKey(RUN_ID, command.fingerprint, 3, 2)
    assert decide(after, command, LIMITS, NOW, known) == Unchanged(RUN_ID, 3, 4), "the same append, said again"
    refused(after, ASSIGN, NOW + 499 * MS)
    again = accepted(after, ASSIGN, NOW + 500 * MS)
    assert (again.attempt, again.lease_epoch, again.is_leased) == (2, 2, True)


def test_the_last_failure_that_is_allowed_ends_the_run() -> None:
    state = retried(max_failures=2)
    again = accepted(accepted(state, append(FAILED)), ASSIGN)
    ended = accepted(again, append(FAILED, epoch=2))
    assert (ended.status, ended.finish, ended.failures) == (RunStatus.FAILED, FAILED, 1)


@pytest.mark.parametrize(
    ("reasons", "reason", "is_retried"),
    [
        ((), "agent_error", True),
        ((), "acme_is_down", True),
        ((), "", True),
        *(((), reason, False) for reason in sorted(LASTING)),
        (("timeout", "invalid_input"), "invalid_input", True),
        (("timeout", "invalid_input"), "agent_error", False),
    ],
)
def test_what_is_tried_again(reasons: tuple[str, ...], reason: str, is_retried: bool) -> None:
    state = retried(max_failures=9, reasons=reasons)
    after = accepted(state, append(RunFinished(Outcome.FAILED, reason)))
    assert (after.status is RunStatus.RUNNING) == is_retried


def test_only_a_failure_is_tried_again_and_only_of_a_run_that_is_to_go_on() -> None:
    state = retried(max_failures=9)
    assert types(state, append(RunFinished(Outcome.SUCCEEDED))) == ["run.finished"]
    canceling = accepted(state, RequestCancel(RUN_ID, ORG_ID, USER_ID))
    assert accepted(canceling, append(FAILED)).status is RunStatus.FAILED


def test_a_cancel_between_two_attempts_ends_the_run() -> None:
    waiting = accepted(retried(max_failures=9, initial_delay_ms=DAY_MS), append(FAILED))
    assert accepted(waiting, RequestCancel(RUN_ID, ORG_ID, USER_ID)).status is RunStatus.CANCELED


def test_no_attempt_is_promised_after_the_run_timeout() -> None:
    queue = {"run_timeout_ms": 10_000, "retry": RetryPolicy(9, initial_delay_ms=6_000)}
    state = accepted(created(**queue), ASSIGN)
    assert accepted(state, append(FAILED), NOW + 3 * SECOND).status is RunStatus.RUNNING
    assert accepted(state, append(FAILED), NOW + 4 * SECOND).status is RunStatus.FAILED


def test_losses_and_failures_are_counted_apart() -> None:
    state = retried(max_failures=100)
    for epoch in range(1, 6):
        state = accepted(accepted(state, append(FAILED, epoch=epoch, key=str(epoch))), ASSIGN)
    for epoch in range(6, 6 + LIMITS.max_requeues):
        state = accepted(accepted(state, LoseLease(RUN_ID, WORKER_ID, epoch)), ASSIGN)
    ended = accepted(state, LoseLease(RUN_ID, WORKER_ID, state.lease_epoch))
    assert ended.finish is not None
    assert (ended.finish.reason, ended.finish.message) == ("executor_lost", "the worker was lost in each of 4 attempts")


@given(
    st.integers(0, DAY_MS),
    st.integers(0, DAY_MS),
    st.integers(0, 100),
)
def test_pauses_double_up_to_the_longest(initial_ms: int, max_ms: int, failures: int) -> None:
    policy = RetryPolicy(100, initial_ms, max_ms)
    pause = pause_ms(policy, failures)
    assert pause == min(initial_ms * 2 ** min(failures, 32), max_ms or DAY_MS)
    assert pause <= pause_ms(policy, failures + 1) <= DAY_MS


def test_replayed_it_is_the_same() -> None:
    """Whoever has the events alone gets the same state, times and counts included."""
    spec = RunSpec("exec", ExecSpec(("true",)), queue=QueuePolicy(run_timeout_ms=9_000, retry=RetryPolicy(3, 7)))
    state, stored = None, []
    steps: list[tuple[Any, int]] = [
        (CreateRun.of(RUN_ID, ORG_ID, USER_ID, spec, "create"), 0),
        (ASSIGN, 1),
        (append(TEXT, FAILED), 2),
        (AssignRun(RUN_ID, OTHER_WORKER_ID), 3),
        (LoseLease(RUN_ID, OTHER_WORKER_ID, 2), 4),
        (TIME_LIMIT, 11),
    ]
    for command, second in steps:
        decision = decide(state, command, LIMITS, NOW + second * SECOND)
        assert isinstance(decision, Accepted), decision
        state = decision.state
        stored += [event.data for event in decision.events]
    assert state is not None
    assert state.finish is not None
    assert state.finish.reason == "run_timeout"
    assert replay(stored) == replace(state, paced_until_ns=0)


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("queue", "field"),
    [
        (QueuePolicy(priority=101), "priority"),
        (QueuePolicy(priority=-101), "priority"),
        (QueuePolicy(start_timeout_ms=31_536_000_001), "start_timeout_ms"),
        (QueuePolicy(run_timeout_ms=2**64 - 1), "run_timeout_ms"),
        (QueuePolicy(retry=RetryPolicy(1)), "retry.max_failures"),
        (QueuePolicy(retry=RetryPolicy(101)), "retry.max_failures"),
        (QueuePolicy(retry=RetryPolicy(2, DAY_MS + 1)), "retry.initial_delay_ms"),
        (QueuePolicy(retry=RetryPolicy(2, 0, DAY_MS + 1)), "retry.max_delay_ms"),
        (QueuePolicy(retry=RetryPolicy(2, reasons=("ok", "Not A Word"))), "retry.reasons[1]"),
        (QueuePolicy(retry=RetryPolicy(2, reasons=("a",) * 33)), "retry.reasons"),
    ],
)
def test_a_policy_beyond_its_bounds_is_refused(queue: QueuePolicy, field: str) -> None:
    message = wire.spec_to_wire(RunSpec("exec", ExecSpec(("true",)), queue=queue))
    with pytest.raises(Refusal) as caught:
        wire.spec_from_wire(message, path="spec.")
    assert (caught.value.reason, caught.value.field) == ("invalid_value", f"spec.queue.{field}")


@pytest.mark.parametrize(("key", "limit", "reason"), [("", 1, "missing_field"), ("gpu", 0, "invalid_value")])
def test_a_concurrency_without_key_or_limit_is_refused(key: str, limit: int, reason: str) -> None:
    message = wire.spec_to_wire(RunSpec("exec", ExecSpec(("true",))))
    message.queue.concurrency.key, message.queue.concurrency.limit = key, limit
    with pytest.raises(Refusal) as caught:
        wire.spec_from_wire(message)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("seconds", "nanos"), [(10**18, 0), (-(10**18), 0), (1, -1), (1, 10**9)])
def test_a_time_that_is_none_is_refused(seconds: int, nanos: int) -> None:
    message = wire.spec_to_wire(RunSpec("exec", ExecSpec(("true",))))
    message.queue.not_before_time.seconds, message.queue.not_before_time.nanos = seconds, nanos
    with pytest.raises(Refusal) as caught:
        wire.spec_from_wire(message, path="spec.")
    assert (caught.value.reason, caught.value.field) == ("invalid_value", "spec.queue.not_before_time")


def test_an_empty_policy_is_none() -> None:
    message = wire.spec_to_wire(RunSpec("exec", ExecSpec(("true",))))
    message.queue.SetInParent()
    assert wire.encode_spec(wire.spec_from_wire(message)) == wire.encode_spec(RunSpec("exec", ExecSpec(("true",))))
