"""The checks of commands that need no more than the run's state and the limits. Each raises the Refusal."""

from __future__ import annotations

from collections.abc import Sequence

from oa_base.rate import Rate, take
from oa_base.refusal import Refusal
from oa_runlog.authority.commands import Append, EncodedBody
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import RESERVED, AgentSpec, CheckpointSaved, RunFinished, RunSpec, StepCompleted
from oa_runlog.state import RunState


def not_found() -> Refusal:
    """The refusal for a run that does not exist or that the caller may not know of."""
    return Refusal("not_found", "there is no such run that you may see; check the id", field="run_id")


def stale_epoch(state: RunState, lease_epoch: int) -> Refusal:
    """The refusal for a lease that is not the run's current one."""
    text = f"lease {lease_epoch} of this run is over; stop working on it"
    return Refusal("stale_epoch", text, field="lease_epoch", metadata={"current_epoch": str(state.lease_epoch)})


def check_retention(spec: RunSpec, limits: RunLimits) -> None:
    if spec.retention in limits.retention_classes:
        return
    classes = ", ".join(sorted(limits.retention_classes))
    text = f"there is no such retention class here; there are: {classes}"
    raise Refusal("invalid_value", text, field="spec.retention_class", metadata={"retention_classes": classes})


def check_input(spec: RunSpec, limits: RunLimits) -> None:
    if isinstance(spec.input, AgentSpec):
        check_size("spec.agent.input_json", len(spec.input.input_json.encode()), limits.max_input_bytes)


def idempotency_conflict() -> Refusal:
    text = "the idempotency key was used before with other content; choose a new key for new content"
    return Refusal("idempotency_conflict", text, field="idempotency_key")


def check_lease(state: RunState, command: Append) -> None:
    is_current = command.lease_epoch == state.lease_epoch and command.worker_id == state.worker_id
    if is_current and not state.fenced and state.lease_epoch > 0:
        return
    raise stale_epoch(state, command.lease_epoch)


def check_expected_seq(state: RunState, command: Append) -> None:
    if command.expected_seq is None or command.expected_seq == state.latest_seq:
        return
    text = f"the run stands at seq {state.latest_seq}, not at {command.expected_seq}; read on and decide again"
    raise Refusal("seq_conflict", text, field="expected_seq", metadata={"current_seq": str(state.latest_seq)})


def check_reserved(command: Append) -> None:
    for index, (kind, _, _) in enumerate(command.events):
        if kind in RESERVED:
            text = f"only the authority appends {kind}; leave it out"
            raise Refusal("event_reserved", text, field=f"events[{index}]", metadata={"event": str(kind)})


def check_sizes(events: Sequence[EncodedBody], limits: RunLimits) -> None:
    for index, (_, body, _) in enumerate(events):
        if isinstance(body, RunFinished | StepCompleted):
            kind = "run_finished" if isinstance(body, RunFinished) else "step_completed"
            field = f"events[{index}].{kind}.result_json"
            check_size(field, len(body.result_json.encode()), limits.max_result_bytes)
        elif isinstance(body, CheckpointSaved):
            field = f"events[{index}].checkpoint_saved.state_json"
            check_size(field, len(body.state_json.encode()), limits.max_checkpoint_bytes)
    sizes = [len(data) for _, _, data in events]
    if max(sizes) > limits.max_event_bytes:
        index = next(index for index, size in enumerate(sizes) if size > limits.max_event_bytes)
        raise _too_large(f"events[{index}]", sizes[index], limits.max_event_bytes, "in pieces")
    if sum(sizes) > limits.max_append_bytes:
        raise _too_large("events", sum(sizes), limits.max_append_bytes, "in pieces")


def check_event_size(field: str, event: EncodedBody, limits: RunLimits) -> None:
    """Check an event that the authority makes of what a caller has sent; `field` is the only part that can be large."""
    check_size(field, len(event.data), min(limits.max_event_bytes, limits.max_append_bytes))


def check_size(field: str, size: int, limit: int) -> None:
    if size > limit:
        raise _too_large(field, size, limit, "and a reference to what is larger")


def _too_large(field: str, size: int, limit: int, how: str) -> Refusal:
    text = f"{field} has {size} bytes; send at most {limit}, {how}"
    return Refusal("payload_too_large", text, field=field, metadata={"limit_bytes": str(limit)})


def pace(state: RunState, events: int, limits: RunLimits, now_ns: int) -> int:
    """The new `paced_until_ns`: when the run's whole burst is available again."""
    rate = Rate.per_second(limits.events_per_second, limits.burst_events)
    taken = take(rate, state.paced_until_ns, now_ns, events)
    if taken.wait_ns == 0:
        return taken.full_at_ns
    text = f"a run takes {limits.events_per_second} events a second, {limits.burst_events} at once; slow down"
    limit = {"events_per_second": str(limits.events_per_second)}
    raise Refusal("publish_rate_limited", text, field="events", metadata=limit, retry_after_ms=taken.wait_ms)
