"""From events to a run's state: the one place where an event's meaning for its run is written down.

`decide` uses `advance` for what it accepts, so what the authority holds and what anybody gets by replaying a log are
the same by construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from oa_errors import Refusal
from oa_runlog import wire
from oa_runlog.chain import chain_next, chain_start
from oa_runlog.events import (
    EventBody,
    ExecutorLost,
    Message,
    RunCancelRequested,
    RunCreated,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
    Verification,
)
from oa_runlog.state import RunState, RunStatus, Totals
from oa_runlog.transitions import allowed_triggers, next_status, trigger


def advance(state: RunState | None, event: RunEvent, data: bytes) -> RunState:
    """The state after `event`, whose stored bytes are `data`. `state` is None before the first.

    Raises Refusal `invalid_transition` for what the table does not allow, and `sequence_broken` for a seq that is not
    the next one.
    """
    before = state.status if state else None
    status = next_status(before, event.body)
    if status is None:
        raise invalid_transition(before, event.body)
    if event.seq != (state.latest_seq if state else 0) + 1:
        raise Refusal("sequence_broken", f"event {event.seq} does not follow", field="seq")
    if state is None:
        return _created(status, event, data)
    moved = replace(state, status=status, latest_seq=event.seq, chain_head=chain_next(state.chain_head, data))
    return _apply(moved, event)


def invalid_transition(status: RunStatus | None, body: EventBody) -> Refusal:
    """The refusal of `body` in `status`: metadata from, event and allowed (comma-separated, maybe empty)."""
    origin, what = str(status or "absent"), trigger(body)
    allowed = ",".join(allowed_triggers(status))
    text = f"a run that is {origin} does not take {what}" + (f"; it takes {allowed}" if allowed else "")
    return Refusal("invalid_transition", text, metadata={"from": origin, "event": what, "allowed": allowed})


def _created(status: RunStatus, event: RunEvent, data: bytes) -> RunState:
    assert isinstance(event.body, RunCreated)  # the table allows nothing else
    return RunState(
        run_id=event.run_id,
        org_id=event.body.org_id,
        user_id=event.body.user_id,
        status=status,
        latest_seq=1,
        chain_head=chain_next(chain_start(event.run_id), data),
        create_ns=event.recorded_ns,
    )


def _apply(state: RunState, event: RunEvent) -> RunState:
    match event.body:
        case RunStarted(worker_id, epoch, attempt):
            return replace(state, worker_id=worker_id, lease_epoch=epoch, attempt=attempt, fenced=False)
        case RunCancelRequested(_, reason):
            return replace(state, cancel_requested_ns=event.recorded_ns, cancel_reason=reason)
        case ExecutorLost():
            return replace(state, fenced=True)
        case RunFinished() as finish:
            # A finish by the authority takes the lease back: nothing that its holder still writes counts.
            fenced = state.fenced or event.lease_epoch == 0
            return replace(state, finish=finish, finish_ns=event.recorded_ns, fenced=fenced)
        case body:
            totals = _count(state.totals, body)
            return state if totals is state.totals else replace(state, totals=totals)


def _count(totals: Totals, body: EventBody) -> Totals:
    match body:
        case TextDelta(_, data):
            return totals.plus(text_bytes=len(data))
        case Message():
            return totals.plus(messages=1)
        case ToolCall():
            return totals.plus(tool_calls=1)
        case ToolResult(failed=failed):
            return totals.plus(tool_results=1, tool_failures=int(failed))
        case Verification(passed=passed):
            return totals.plus(verifications=1, verification_failures=int(not passed))
        case Usage(_, read, written, cached):
            return totals.plus(input_tokens=read, output_tokens=written, cached_input_tokens=cached)
        case _:
            return totals


def replay(events: Iterable[bytes]) -> RunState | None:
    """The state that stored events lead to, None for no events. Raises Refusal as `advance` and `decode_event` do."""
    state: RunState | None = None
    for data in events:
        state = advance(state, wire.decode_event(data), data)
    return state
