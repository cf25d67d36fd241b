"""Rules that the table of statuses can't express: whose event it is, under which lease, and what must precede it.

`decide` writes no event that breaks one of these rules. A replay checks a log against them, so that a history that no
authority could have written is not taken for a run just because its hashes fit. Not checked: times (clocks can be set
back), the number of attempts, and the wait for a cancel (both are settings).
"""

from __future__ import annotations

from oa_runlog.events import (
    AUTHORITY,
    AttemptFailed,
    ChildFinished,
    ChildStarted,
    ExecutorLost,
    InputReceived,
    Outcome,
    RequestAnswered,
    RequestExpired,
    RunCancelRequested,
    RunCreated,
    RunEvent,
    RunFinished,
    RunStarted,
)
from oa_runlog.state.run import RunState, RunStatus


def fault_of(state: RunState | None, event: RunEvent) -> str:
    """Return what is wrong with `event` as the next one of a run in `state`, whose status allows it; "" if nothing."""
    body = event.body
    if state is None or isinstance(body, RunCreated):
        return _unless(event.lease_epoch == AUTHORITY, "it is under a lease, and only the authority creates a run")
    if state.ending and not isinstance(body, RunFinished):
        return "the executor was lost for good, and only the finish may follow"
    match body:
        case RunStarted():
            return _start(state, event, body)
        case ExecutorLost():
            return _loss(state, event, body)
        case AttemptFailed():
            return _failed_attempt(state, event, body)
        case RunCancelRequested():
            return _unless(event.lease_epoch == AUTHORITY, "it is under a lease, and only the authority cancels")
        case InputReceived() | RequestAnswered() | RequestExpired() | ChildStarted() | ChildFinished():
            return _unless(event.lease_epoch == AUTHORITY, "it is under a lease, and only the authority hears others")
        case RunFinished():
            return _finish(state, event, body)
        case _:
            return _work(state, event)


def _start(state: RunState, event: RunEvent, body: RunStarted) -> str:
    if event.lease_epoch != AUTHORITY:
        return "it is under a lease, and only the authority starts a run"
    if state.is_leased:
        return "a worker holds the run, and was not lost"
    expected = (state.lease_epoch + 1, state.attempt + 1)
    return _unless((body.lease_epoch, body.attempt) == expected, "it has not the next lease epoch and attempt")


def _loss(state: RunState, event: RunEvent, body: ExecutorLost) -> str:
    if event.lease_epoch != AUTHORITY:
        return "it is under a lease, and only the authority says who was lost"
    held = (state.worker_id, state.lease_epoch, state.attempt)
    if not state.is_leased or (body.worker_id, body.lease_epoch, body.attempt) != held:
        return "who was lost does not hold the run"
    return _unless(not (body.requeued and state.status is RunStatus.CANCELING), "a run being canceled waits for nobody")


def _failed_attempt(state: RunState, event: RunEvent, body: AttemptFailed) -> str:
    if event.lease_epoch != AUTHORITY:
        return "it is under a lease, and only the authority says that a run is tried again"
    held = (state.worker_id, state.lease_epoch, state.attempt)
    if not state.is_leased or (body.worker_id, body.lease_epoch, body.attempt) != held:
        return "who failed does not hold the run"
    policy = state.queue.retry
    is_retried = policy is not None and state.failures + 1 < policy.max_failures
    return _unless(is_retried, "by its policy the run is not tried again")


def _finish(state: RunState, event: RunEvent, body: RunFinished) -> str:
    if event.lease_epoch != AUTHORITY:
        return _work(state, event)
    if state.status is RunStatus.CANCELING:
        return _unless(body.outcome is Outcome.CANCELED, "the authority ends a run being canceled in no other way")
    is_over = state.ending or state.deadline_ns is not None
    is_failure = is_over and body.outcome is Outcome.FAILED
    return _unless(is_failure, "the authority ends a run only when its executor was lost for good, or its time is over")


def _work(state: RunState, event: RunEvent) -> str:
    is_holders = state.is_leased and event.lease_epoch == state.lease_epoch
    return _unless(is_holders, "it is not under the lease that a worker holds")


def _unless(holds: bool, fault: str) -> str:
    return "" if holds else fault
