"""The rules by which the authority decides commands, as pure code.

The order in which an append is checked is part of the contract (docs/protocol/append.md): first a known key, so that a
retry always gets the answer of the first time; then the lease, so that a worker that lost it learns that and nothing
else; then the expected seq, the state machine, sizes, and pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from oa_base.clock import MS_NS
from oa_base.rate import Rate, take
from oa_base.refusal import Refusal
from oa_runlog import wire
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
from oa_runlog.authority.retries import retry_ns
from oa_runlog.events import (
    AUTHORITY,
    DEFAULT_RETENTION_CLASS,
    RESERVED,
    AgentSpec,
    AttemptFailed,
    CheckpointSaved,
    EventType,
    ExecutorLost,
    InputReceived,
    Outcome,
    RunCancelRequested,
    RunCreated,
    RunEvent,
    RunFinished,
    RunSpec,
    RunStarted,
    StepCompleted,
)
from oa_runlog.state import FINAL_STATUS, RunState, RunStatus
from oa_runlog.state.reducer import Fold, invalid_transition
from oa_runlog.state.transitions import next_status


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of runs. All of them are settings of the runtime service, see docs/config.md.

    `max_running_per_…`: how many runs of an org, and of one person in it, workers may hold at a time, not counting
    ancestors of other runs that they hold; 0 is no limit.
    """

    max_event_bytes: int = 262_144
    max_append_bytes: int = 1_048_576
    max_input_bytes: int = 196_608
    max_result_bytes: int = 196_608
    max_checkpoint_bytes: int = 196_608
    events_per_second: int = 240
    burst_events: int = 500
    max_requeues: int = 3
    cancel_deadline_ms: int = 10_000
    retention_classes: frozenset[str] = frozenset({DEFAULT_RETENTION_CLASS})
    max_running_per_org: int = 0
    max_running_per_person: int = 0


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
    state: RunState | None, command: Command, limits: Limits, now_ns: int, known: KnownKey | None = None
) -> Decision:
    """Decide `command` for the run in `state` (None: there is no such run), at `now_ns`.

    `known` describes the events stored under the command's idempotency key, if there are any. Nothing is raised.
    """
    try:
        return _decide(state, command, limits, now_ns, known)
    except Refusal as refusal:
        return refusal


def _decide(
    state: RunState | None, command: Command, limits: Limits, now_ns: int, known: KnownKey | None
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


def not_found() -> Refusal:
    """The refusal for a run that does not exist or that the caller may not know of."""
    return Refusal("not_found", "there is no such run that you may see; check the id", field="run_id")


def stale_epoch(state: RunState, lease_epoch: int) -> Refusal:
    """The refusal for a lease that is not the run's current one."""
    text = f"lease {lease_epoch} of this run is over; stop working on it"
    return Refusal("stale_epoch", text, field="lease_epoch", metadata={"current_epoch": str(state.lease_epoch)})


# ------------------------------------------------------------------------------------------------- create


def _create(command: CreateRun, limits: Limits, now_ns: int, known: KnownKey | None) -> Accepted | Unchanged:
    if known is not None:
        if known.fingerprint != command.fingerprint:
            raise _idempotency_conflict()
        return Unchanged(known.run_id, known.first_seq, known.first_seq)
    _check_retention(command.spec, limits)
    _check_input(command.spec, limits)
    if command.fault is not None:
        raise command.fault
    created = EncodedBody.of(RunCreated(command.user_id, command.org_id, command.spec, command.parent_run_id))
    _check_event_size("spec", created, limits)
    return _store(None, command.run_id, [created], AUTHORITY, now_ns)


def _check_retention(spec: RunSpec, limits: Limits) -> None:
    if spec.retention in limits.retention_classes:
        return
    classes = ", ".join(sorted(limits.retention_classes))
    text = f"there is no such retention class here; there are: {classes}"
    raise Refusal("invalid_value", text, field="spec.retention_class", metadata={"retention_classes": classes})


def _check_input(spec: RunSpec, limits: Limits) -> None:
    if isinstance(spec.input, AgentSpec):
        _check_size("spec.agent.input_json", len(spec.input.input_json.encode()), limits.max_input_bytes)


# ------------------------------------------------------------------------------------------------- append


def _append(
    state: RunState, command: Append, limits: Limits, now_ns: int, known: KnownKey | None
) -> Accepted | Unchanged:
    if state.org_id != command.org_id:
        raise not_found()
    if known is not None:
        if known.fingerprint != command.fingerprint:
            raise _idempotency_conflict()
        return Unchanged(state.run_id, known.first_seq, known.first_seq + known.count - 1)
    _check_lease(state, command)
    _check_expected_seq(state, command)
    _check_reserved(command)
    repeated = _check_transitions(state, command)
    if repeated is not None:
        return repeated
    _check_sizes(command.events, limits)
    paced = replace(state, paced_until_ns=_pace(state, len(command.events), limits, now_ns))
    return _store_work(paced, command, now_ns)


def _store_work(state: RunState, command: Append, now_ns: int) -> Accepted:
    """Store a worker's append. If the run is tried again, AttemptFailed is stored in place of the failed finish."""
    failed = _failed_attempt(state, command, now_ns)
    if failed is None:
        return _store(state, state.run_id, command.events, command.lease_epoch, now_ns)
    work: tuple[NewEvent, ...] = ()
    if len(command.events) > 1:
        accepted = _store(state, state.run_id, command.events[:-1], command.lease_epoch, now_ns)
        state, work = accepted.state, accepted.events
    ended = _store(state, state.run_id, [EncodedBody.of(failed)], AUTHORITY, now_ns)
    return Accepted(ended.state, work + ended.events)


def _failed_attempt(state: RunState, command: Append, now_ns: int) -> AttemptFailed | None:
    failure = command.events[-1].body
    if not isinstance(failure, RunFinished) or failure.outcome is not Outcome.FAILED:
        return None
    when_ns = retry_ns(state, failure, now_ns) if state.status is RunStatus.RUNNING else None
    if when_ns is None:
        return None
    return AttemptFailed(state.worker_id, state.lease_epoch, state.attempt, failure, when_ns)


def _idempotency_conflict() -> Refusal:
    text = "the idempotency key was used before with other content; choose a new key for new content"
    return Refusal("idempotency_conflict", text, field="idempotency_key")


def _check_lease(state: RunState, command: Append) -> None:
    is_current = command.lease_epoch == state.lease_epoch and command.worker_id == state.worker_id
    if is_current and not state.fenced and state.lease_epoch > 0:
        return
    raise stale_epoch(state, command.lease_epoch)


def _check_expected_seq(state: RunState, command: Append) -> None:
    if command.expected_seq is None or command.expected_seq == state.latest_seq:
        return
    text = f"the run stands at seq {state.latest_seq}, not at {command.expected_seq}; read on and decide again"
    raise Refusal("seq_conflict", text, field="expected_seq", metadata={"current_seq": str(state.latest_seq)})


def _check_reserved(command: Append) -> None:
    for index, (kind, _, _) in enumerate(command.events):
        if kind in RESERVED:
            text = f"only the authority appends {kind}; leave it out"
            raise Refusal("event_reserved", text, field=f"events[{index}]", metadata={"event": str(kind)})


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
        return Unchanged(state.run_id, state.latest_seq, state.latest_seq)
    text = f"the run has finished: {finish.outcome}; append nothing more to it"
    raise Refusal("already_finished", text, field="events[0]", metadata={"outcome": str(finish.outcome)})


def _check_sizes(events: Sequence[EncodedBody], limits: Limits) -> None:
    for index, (_, body, _) in enumerate(events):
        if isinstance(body, RunFinished | StepCompleted):
            kind = "run_finished" if isinstance(body, RunFinished) else "step_completed"
            field = f"events[{index}].{kind}.result_json"
            _check_size(field, len(body.result_json.encode()), limits.max_result_bytes)
        elif isinstance(body, CheckpointSaved):
            field = f"events[{index}].checkpoint_saved.state_json"
            _check_size(field, len(body.state_json.encode()), limits.max_checkpoint_bytes)
    sizes = [len(data) for _, _, data in events]
    if max(sizes) > limits.max_event_bytes:
        index = next(index for index, size in enumerate(sizes) if size > limits.max_event_bytes)
        raise _too_large(f"events[{index}]", sizes[index], limits.max_event_bytes, "in pieces")
    if sum(sizes) > limits.max_append_bytes:
        raise _too_large("events", sum(sizes), limits.max_append_bytes, "in pieces")


def _check_event_size(field: str, event: EncodedBody, limits: Limits) -> None:
    """Check an event that the authority makes of what a caller has sent; `field` is the only part that can be large."""
    _check_size(field, len(event.data), min(limits.max_event_bytes, limits.max_append_bytes))


def _check_size(field: str, size: int, limit: int) -> None:
    if size > limit:
        raise _too_large(field, size, limit, "and a reference to what is larger")


def _too_large(field: str, size: int, limit: int, how: str) -> Refusal:
    text = f"{field} has {size} bytes; send at most {limit}, {how}"
    return Refusal("payload_too_large", text, field=field, metadata={"limit_bytes": str(limit)})


def _pace(state: RunState, events: int, limits: Limits, now_ns: int) -> int:
    """The new `paced_until_ns`: when the run's whole burst is available again."""
    rate = Rate.per_second(limits.events_per_second, limits.burst_events)
    taken = take(rate, state.paced_until_ns, now_ns, events)
    if taken.wait_ns == 0:
        return taken.full_at_ns
    text = f"a run takes {limits.events_per_second} events a second, {limits.burst_events} at once; slow down"
    limit = {"events_per_second": str(limits.events_per_second)}
    raise Refusal("publish_rate_limited", text, field="events", metadata=limit, retry_after_ms=taken.wait_ms)


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
        return Unchanged(state.run_id, state.latest_seq, state.latest_seq)
    events = [EncodedBody.of(RunCancelRequested(command.requested_by, command.reason))]
    if not state.is_leased:
        waited = "before a worker had it" if state.attempt == 0 else "while it waited for another worker"
        events.append(_canceled("canceled", f"canceled {waited}"))
    return _store(state, state.run_id, events, AUTHORITY, now_ns)


def _send_input(
    state: RunState, command: SendInput, limits: Limits, now_ns: int, known: KnownKey | None
) -> Accepted | Unchanged:
    if state.org_id != command.org_id:
        raise not_found()
    if known is not None:
        if known.fingerprint != command.fingerprint:
            raise _idempotency_conflict()
        return Unchanged(state.run_id, known.first_seq, known.first_seq)
    body = command.event.body
    if next_status(state.status, body) is None:
        raise invalid_transition(state.status, body)
    if isinstance(body, InputReceived):
        _check_size("input_json", len(body.input_json.encode()), limits.max_input_bytes)
    _check_event_size("input_json", command.event, limits)
    paced_until_ns = _pace(state, 1, limits, now_ns)
    accepted = _store(state, state.run_id, [command.event], AUTHORITY, now_ns)
    return replace(accepted, state=replace(accepted.state, paced_until_ns=paced_until_ns))


def _settle_request(
    state: RunState, command: SettleRequest, limits: Limits, now_ns: int, known: KnownKey | None
) -> Accepted | Unchanged:
    if state.org_id != command.org_id:
        raise not_found()
    is_answer = command.event.type is EventType.REQUEST_ANSWERED
    if known is not None and is_answer and known.fingerprint != command.fingerprint:
        text = "the request was answered before, or its time is over; read what settled it"
        raise Refusal("request_settled", text, field="request_id", metadata={"seq": str(known.first_seq)})
    if known is not None:
        return Unchanged(state.run_id, known.first_seq, known.first_seq)
    if next_status(state.status, command.event.body) is None:
        raise invalid_transition(state.status, command.event.body)
    _check_event_size("text", command.event, limits)
    return _store(state, state.run_id, [command.event], AUTHORITY, now_ns)


def _tell_child(state: RunState, command: TellChild, now_ns: int, known: KnownKey | None) -> Accepted | Unchanged:
    if known is not None:
        return Unchanged(state.run_id, known.first_seq, known.first_seq)
    if next_status(state.status, command.event.body) is None:
        raise invalid_transition(state.status, command.event.body)
    return _store(state, state.run_id, [command.event], AUTHORITY, now_ns)


def _lose_lease(state: RunState, command: LoseLease, limits: Limits, now_ns: int) -> Accepted | Unchanged:
    if not state.is_leased or (state.worker_id, state.lease_epoch) != (command.worker_id, command.lease_epoch):
        return Unchanged(state.run_id, state.latest_seq, state.latest_seq)
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


def _cancel_deadline(state: RunState, limits: Limits, now_ns: int) -> Accepted | Unchanged:
    asked_ns = state.cancel_requested_ns
    is_due = asked_ns is not None and now_ns - asked_ns >= limits.cancel_deadline_ms * MS_NS
    if state.status.is_final or not is_due:
        return Unchanged(state.run_id, state.latest_seq, state.latest_seq)
    text = f"the worker did not end it within {limits.cancel_deadline_ms} ms"
    return _store(state, state.run_id, [_canceled("cancel_deadline", text)], AUTHORITY, now_ns)


def _time_limit(state: RunState, now_ns: int) -> Accepted | Unchanged:
    is_due = state.deadline_ns is not None and now_ns >= state.deadline_ns
    if state.status.is_final or state.status is RunStatus.CANCELING or not is_due:
        return Unchanged(state.run_id, state.latest_seq, state.latest_seq)
    if state.attempt == 0:
        text = f"no worker started it within {state.queue.start_timeout_ms} ms; start one, or give it more time"
        finish = RunFinished(Outcome.FAILED, "start_timeout", text)
    else:
        text = f"it did not end within {state.queue.run_timeout_ms} ms of its first start; give it more time"
        finish = RunFinished(Outcome.FAILED, "run_timeout", text)
    return _store(state, state.run_id, [EncodedBody.of(finish)], AUTHORITY, now_ns)


def _canceled(reason: str, message: str) -> EncodedBody:
    return EncodedBody.of(RunFinished(Outcome.CANCELED, reason, message))


# ------------------------------------------------------------------------------------------------- what is stored


def _store(
    state: RunState | None, run_id: str, events: Sequence[EncodedBody], lease_epoch: int, now_ns: int
) -> Accepted:
    """Number the events, make their bytes, and let the reducer compute the state after them."""
    types, bodies, parts = zip(*events, strict=True)
    fold = Fold(state)
    first_seq = fold.latest_seq + 1
    stored = wire.EventEncoder(run_id, now_ns, lease_epoch).encode_all(first_seq, parts)
    chains = fold.take_all(RunEvent(run_id, first_seq, now_ns, lease_epoch, bodies[0]), bodies, stored)
    assert fold.state is not None  # every command that gets here stores something
    return Accepted(fold.state, tuple(map(NewEvent, range(first_seq, fold.latest_seq + 1), types, stored, chains)))
