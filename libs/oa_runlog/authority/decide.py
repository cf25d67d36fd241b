"""The rules by which the authority decides commands, as pure code.

The order in which an append is checked is part of the contract (docs/protocol/append.md): first a known key, so that a
retry always gets the answer of the first time; then the lease, so that a worker that lost it learns that and nothing
else; then the expected seq, the state machine, sizes, and pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from oa_base.clock import MS_NS
from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.authority.checks import (
    check_event_size,
    check_expected_seq,
    check_input,
    check_lease,
    check_reserved,
    check_retention,
    check_size,
    check_sizes,
    idempotency_conflict,
    not_found,
    pace,
)
from oa_runlog.authority.commands import (
    Append,
    AssignRun,
    CancelDeadline,
    Command,
    CreateRun,
    EncodedBody,
    LoseLease,
    RequestCancel,
    SendInput,
    SettleRequest,
    TellChild,
    TimeLimit,
)
from oa_runlog.authority.limits import RunLimits
from oa_runlog.authority.retries import retry_ns
from oa_runlog.events import (
    AUTHORITY,
    AttemptFailed,
    EventBody,
    EventType,
    ExecutorLost,
    InputReceived,
    Outcome,
    RunCancelRequested,
    RunCreated,
    RunEvent,
    RunFinished,
    RunStarted,
)
from oa_runlog.state import FINAL_STATUS, RunState, RunStatus
from oa_runlog.state.reducer import Fold, invalid_transition
from oa_runlog.state.transitions import next_status


@dataclass(frozen=True, slots=True)
class KnownKey:
    """The events that are stored under a command's idempotency key. `run_id` matters only for CreateRun."""

    run_id: str
    fingerprint: bytes
    first_seq: int
    count: int


class NewEvent(NamedTuple):
    """An event to be stored: its bytes, which are made here and never again, and the chain up to it."""

    seq: int
    type: EventType
    data: bytes
    chain: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The command changes the run: these events are to be stored, and this is the state after them."""

    state: RunState
    events: tuple[NewEvent, ...]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The command already had its effect; nothing is to be stored."""

    run_id: str
    first_seq: int
    last_seq: int


Decision = Accepted | Unchanged | Refusal
"""The decision about a command."""


def decide(
    state: RunState | None, command: Command, limits: RunLimits, now_ns: int, known: KnownKey | None = None
) -> Decision:
    """Decide `command` for the run in `state` (None: there is no such run), at `now_ns`.

    `known` describes the events stored under the command's idempotency key, if there are any. Nothing is raised.
    """
    try:
        return _decide(state, command, limits, now_ns, known)
    except Refusal as refusal:
        return refusal


def _decide(
    state: RunState | None, command: Command, limits: RunLimits, now_ns: int, known: KnownKey | None
) -> Accepted | Unchanged:
    if isinstance(command, CreateRun):
        return _create(command, limits, now_ns, known)
    if state is None:
        raise not_found()
    match command:
        case Append():
            return _append(state, command, limits, now_ns, known)
        case AssignRun():
            return _assign(state, command, now_ns)
        case RequestCancel():
            return _request_cancel(state, command, now_ns)
        case SendInput():
            return _send_input(state, command, limits, now_ns, known)
        case SettleRequest():
            return _settle_request(state, command, limits, now_ns, known)
        case TellChild():
            return _tell_child(state, command, now_ns, known)
        case LoseLease():
            return _lose_lease(state, command, limits, now_ns)
        case CancelDeadline():
            return _cancel_deadline(state, limits, now_ns)
        case TimeLimit():
            return _time_limit(state, now_ns)


# ------------------------------------------------------------------------------------------------- create


def _create(command: CreateRun, limits: RunLimits, now_ns: int, known: KnownKey | None) -> Accepted | Unchanged:
    if known is not None:
        if known.fingerprint != command.fingerprint:
            raise idempotency_conflict()
        return Unchanged(known.run_id, known.first_seq, known.first_seq)
    check_retention(command.spec, limits)
    check_input(command.spec, limits)
    if command.fault is not None:
        raise command.fault
    created = EncodedBody.of(RunCreated(command.user_id, command.org_id, command.spec, command.parent_run_id))
    check_event_size("spec", created, limits)
    return _store(None, command.run_id, [created], AUTHORITY, now_ns)


# ------------------------------------------------------------------------------------------------- append


def _append(
    state: RunState, command: Append, limits: RunLimits, now_ns: int, known: KnownKey | None
) -> Accepted | Unchanged:
    if state.org_id != command.org_id:
        raise not_found()
    if known is not None:
        if known.fingerprint != command.fingerprint:
            raise idempotency_conflict()
        return Unchanged(state.run_id, known.first_seq, known.first_seq + known.count - 1)
    check_lease(state, command)
    check_expected_seq(state, command)
    check_reserved(command)
    repeated = _check_transitions(state, command)
    if repeated is not None:
        return repeated
    check_sizes(command.events, limits)
    return _store_work(state, command, now_ns, pace(state, len(command.events), limits, now_ns))


def _store_work(state: RunState, command: Append, now_ns: int, paced_until_ns: int) -> Accepted:
    """Store a worker's append. If the run is tried again, AttemptFailed is stored in place of the failed finish."""
    failed = _failed_attempt(state, command, now_ns)
    if failed is None:
        return _store(state, state.run_id, command.events, command.lease_epoch, now_ns, paced_until_ns)
    work: tuple[NewEvent, ...] = ()
    if len(command.events) > 1:
        accepted = _store(state, state.run_id, command.events[:-1], command.lease_epoch, now_ns, paced_until_ns)
        state, work = accepted.state, accepted.events
    ended = _store(state, state.run_id, [EncodedBody.of(failed)], AUTHORITY, now_ns, paced_until_ns)
    return Accepted(ended.state, work + ended.events)


def _failed_attempt(state: RunState, command: Append, now_ns: int) -> AttemptFailed | None:
    failure = command.events[-1].body
    if not isinstance(failure, RunFinished) or failure.outcome is not Outcome.FAILED:
        return None
    when_ns = retry_ns(state, failure, now_ns) if state.status is RunStatus.RUNNING else None
    if when_ns is None:
        return None
    return AttemptFailed(state.worker_id, state.lease_epoch, state.attempt, failure, when_ns)


def _check_transitions(state: RunState, command: Append) -> Unchanged | None:
    """Check the whole batch against the table. Returns Unchanged for the finish that the run already has."""
    if state.finish is not None and len(command.events) == 1:
        body = command.events[0].body
        if isinstance(body, RunFinished):
            return _finish_again(state, state.finish, body)
    status = state.status
    steady: set[EventType] = set()  # types that, by the table, leave the status as it is
    for index, (kind, body, _) in enumerate(command.events):
        if kind in steady:
            continue
        after = next_status(status, body)
        if after is None:
            raise invalid_transition(status, body).under(f"events[{index}]")
        if after is status:
            steady.add(kind)
        else:
            steady.clear()
            status = after
    return None


def _finish_again(state: RunState, finish: RunFinished, again: RunFinished) -> Unchanged:
    if FINAL_STATUS[again.outcome] is state.status:
        return _unchanged(state)
    text = f"the run has finished: {finish.outcome}; append nothing more to it"
    raise Refusal("already_finished", text, field="events[0]", metadata={"outcome": str(finish.outcome)})


# ------------------------------------------------------------------------------------------------- leases and cancels


def _assign(state: RunState, command: AssignRun, now_ns: int) -> Accepted:
    if state.is_leased:
        epoch = {"current_epoch": str(state.lease_epoch)}
        raise Refusal("stale_epoch", "another worker holds the run; leave it there", field="run_id", metadata=epoch)
    if now_ns < (state.not_before_ns or 0):
        raise Refusal("invalid_transition", "the run waits for its time; give it to a worker then", field="run_id")
    started = RunStarted(command.worker_id, state.lease_epoch + 1, state.attempt + 1)
    return _store(state, state.run_id, [EncodedBody.of(started)], AUTHORITY, now_ns)


def _request_cancel(state: RunState, command: RequestCancel, now_ns: int) -> Accepted | Unchanged:
    if state.org_id != command.org_id:
        raise not_found()
    if state.status.is_final or state.cancel_requested_ns is not None:
        return _unchanged(state)
    events = [EncodedBody.of(RunCancelRequested(command.requested_by, command.reason))]
    if not state.is_leased:
        waited = "before a worker had it" if state.attempt == 0 else "while it waited for another worker"
        events.append(_canceled("canceled", f"canceled {waited}"))
    return _store(state, state.run_id, events, AUTHORITY, now_ns)


def _send_input(
    state: RunState, command: SendInput, limits: RunLimits, now_ns: int, known: KnownKey | None
) -> Accepted | Unchanged:
    if state.org_id != command.org_id:
        raise not_found()
    if known is not None:
        if known.fingerprint != command.fingerprint:
            raise idempotency_conflict()
        return Unchanged(state.run_id, known.first_seq, known.first_seq)
    body = command.event.body
    _check_transition(state, body)
    if isinstance(body, InputReceived):
        check_size("input_json", len(body.input_json.encode()), limits.max_input_bytes)
    check_event_size("input_json", command.event, limits)
    paced_until_ns = pace(state, 1, limits, now_ns)
    return _store(state, state.run_id, [command.event], AUTHORITY, now_ns, paced_until_ns)


def _settle_request(
    state: RunState, command: SettleRequest, limits: RunLimits, now_ns: int, known: KnownKey | None
) -> Accepted | Unchanged:
    if state.org_id != command.org_id:
        raise not_found()
    is_answer = command.event.type is EventType.REQUEST_ANSWERED
    if known is not None and is_answer and known.fingerprint != command.fingerprint:
        text = "the request was answered before, or its time is over; read what settled it"
        raise Refusal("request_settled", text, field="request_id", metadata={"seq": str(known.first_seq)})
    if known is not None:
        return Unchanged(state.run_id, known.first_seq, known.first_seq)
    _check_transition(state, command.event.body)
    check_event_size("text", command.event, limits)
    return _store(state, state.run_id, [command.event], AUTHORITY, now_ns)


def _tell_child(state: RunState, command: TellChild, now_ns: int, known: KnownKey | None) -> Accepted | Unchanged:
    if known is not None:
        return Unchanged(state.run_id, known.first_seq, known.first_seq)
    _check_transition(state, command.event.body)
    return _store(state, state.run_id, [command.event], AUTHORITY, now_ns)


def _lose_lease(state: RunState, command: LoseLease, limits: RunLimits, now_ns: int) -> Accepted | Unchanged:
    if not state.is_leased or (state.worker_id, state.lease_epoch) != (command.worker_id, command.lease_epoch):
        return _unchanged(state)
    canceling = state.cancel_requested_ns is not None
    losses = state.attempt - state.failures
    requeued = not canceling and losses <= limits.max_requeues
    lost = ExecutorLost(state.worker_id, state.lease_epoch, state.attempt, requeued)
    events = [EncodedBody.of(lost)]
    if canceling:
        events.append(_canceled("canceled", "the worker was lost after the cancel was requested"))
    elif not requeued:
        text = f"the worker was lost in each of {losses} attempts"
        events.append(EncodedBody.of(RunFinished(Outcome.FAILED, "executor_lost", text)))
    return _store(state, state.run_id, events, AUTHORITY, now_ns)


def _cancel_deadline(state: RunState, limits: RunLimits, now_ns: int) -> Accepted | Unchanged:
    asked_ns = state.cancel_requested_ns
    is_due = asked_ns is not None and now_ns - asked_ns >= limits.cancel_deadline_ms * MS_NS
    if state.status.is_final or not is_due:
        return _unchanged(state)
    text = f"the worker did not end it within {limits.cancel_deadline_ms} ms"
    return _store(state, state.run_id, [_canceled("cancel_deadline", text)], AUTHORITY, now_ns)


def _time_limit(state: RunState, now_ns: int) -> Accepted | Unchanged:
    is_due = state.deadline_ns is not None and now_ns >= state.deadline_ns
    if state.status.is_final or state.status is RunStatus.CANCELING or not is_due:
        return _unchanged(state)
    if state.attempt == 0:
        text = f"no worker started it within {state.queue.start_timeout_ms} ms; start one, or give it more time"
        finish = RunFinished(Outcome.FAILED, "start_timeout", text)
    else:
        text = f"it did not end within {state.queue.run_timeout_ms} ms of its first start; give it more time"
        finish = RunFinished(Outcome.FAILED, "run_timeout", text)
    return _store(state, state.run_id, [EncodedBody.of(finish)], AUTHORITY, now_ns)


def _check_transition(state: RunState, body: EventBody) -> None:
    if next_status(state.status, body) is None:
        raise invalid_transition(state.status, body)


def _unchanged(state: RunState) -> Unchanged:
    return Unchanged(state.run_id, state.latest_seq, state.latest_seq)


def _canceled(reason: str, message: str) -> EncodedBody:
    return EncodedBody.of(RunFinished(Outcome.CANCELED, reason, message))


# ------------------------------------------------------------------------------------------------- what is stored


def _store(
    state: RunState | None,
    run_id: str,
    events: Sequence[EncodedBody],
    lease_epoch: int,
    now_ns: int,
    paced_until_ns: int | None = None,
) -> Accepted:
    """Number the events, make their bytes, and let the reducer compute the state after them."""
    types, bodies, parts = zip(*events, strict=True)
    fold = Fold(state, paced_until_ns)
    first_seq = fold.latest_seq + 1
    stored = wire.EventEncoder(run_id, now_ns, lease_epoch).encode_all(first_seq, parts)
    chains = fold.take_all(RunEvent(run_id, first_seq, now_ns, lease_epoch, bodies[0]), bodies, stored)
    assert fold.state is not None  # every command that gets here stores something
    return Accepted(fold.state, tuple(map(NewEvent, range(first_seq, fold.latest_seq + 1), types, stored, chains)))
