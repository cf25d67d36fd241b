"""From events to a run's state: the one place that defines what an event means for its run.

`decide` uses `Fold` for the events that it accepts, so the authority's state and the state that anybody gets by
replaying a log are the same by construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from oa_base.clock import LAST_NS, MS_NS
from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.events import (
    AUTHORITY,
    AttemptFailed,
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
from oa_runlog.proof.chain import chain_next, chain_start
from oa_runlog.state.lawful import fault_of
from oa_runlog.state.run import RunState, RunStatus
from oa_runlog.state.transitions import allowed_triggers, next_status, trigger


class Fold:
    """Takes events one after the other; `state` is the run's state after them.

    An append may contain hundreds of events that only add to the work. Numbers, chain and totals are updated in place;
    a new RunState is made when a caller asks for it, or when an event changes more than that.
    """

    def __init__(self, state: RunState | None, paced_until_ns: int | None = None) -> None:
        """`paced_until_ns`: what `decide` notes in the state with the events; None leaves it as it is."""
        self._state = state
        self._paced_until_ns = paced_until_ns
        self.latest_seq = state.latest_seq if state else 0
        self.chain_head = state.chain_head if state else b""
        self._amounts: dict[str, int] = {}

    @property
    def state(self) -> RunState | None:
        """The state after the events taken so far; None before the first event of a new run."""
        state = self._state
        if state is not None and state.latest_seq != self.latest_seq:
            self._state = self._moved_on(state, state.status)
        return self._state

    def _moved_on(self, state: RunState, status: RunStatus) -> RunState:
        """The state with the numbers, chain and totals after the events taken since, in this status."""
        totals = state.totals.plus(**self._amounts) if self._amounts else state.totals
        self._amounts = {}
        paced_until_ns = state.paced_until_ns if self._paced_until_ns is None else self._paced_until_ns
        return replace(
            state,
            status=status,
            latest_seq=self.latest_seq,
            chain_head=self.chain_head,
            totals=totals,
            paced_until_ns=paced_until_ns,
        )

    def take(self, event: RunEvent, data: bytes) -> None:
        """Take the next event, whose stored bytes are `data`.

        Raises Refusal `invalid_transition` for an event that the table or the rules of `lawful` do not allow, and
        `sequence_broken` for a seq that is not the next one; the event is not taken then.
        """
        status = self._status_after(event.body)
        if fault := fault_of(self._state, event):
            raise _unlawful(self._state, event, fault)
        if event.seq != self.latest_seq + 1:
            raise Refusal("sequence_broken", f"event {event.seq} does not follow", field="seq")
        if self._is_moved_by(event.body, status):
            self._move(status, event, data)
        else:
            self._add(event.body, data)

    def take_all(self, first: RunEvent, bodies: Iterable[EventBody], stored: Iterable[bytes]) -> list[bytes]:
        """Take events that were recorded together: `first` and others that differ from it only in seq and body.

        `stored` are their bytes. Returns the chain up to each of them. Raises `invalid_transition` for an event that
        the table does not allow; the events before it are taken then. The caller, `decide`, must keep the rules of
        `lawful`.
        """
        chains: list[bytes] = []
        steady: set[type[EventBody]] = set()  # types that, by the table, leave the status as it is
        for body, data in zip(bodies, stored, strict=True):
            if type(body) not in steady:
                status = self._status_after(body)
                if self._is_moved_by(body, status):
                    self._move(status, first._replace(seq=self.latest_seq + 1, body=body), data)
                    chains.append(self.chain_head)
                    steady.clear()
                    continue
                steady.add(type(body))
            self._add(body, data)
            chains.append(self.chain_head)
        return chains

    def _status_after(self, body: EventBody) -> RunStatus:
        before = self._state.status if self._state else None
        status = next_status(before, body)
        if status is None:
            raise invalid_transition(before, body)
        return status

    def _is_moved_by(self, body: EventBody, status: RunStatus) -> bool:
        return type(body) in _MOVING or self._state is None or status is not self._state.status

    def _add(self, body: EventBody, data: bytes) -> None:
        self.chain_head = chain_next(self.chain_head, data)
        self.latest_seq += 1
        for name, amount in _amounts(body):
            self._amounts[name] = self._amounts.get(name, 0) + amount

    def _move(self, status: RunStatus, event: RunEvent, data: bytes) -> None:
        if self._state is None:
            self.chain_head = chain_start(event.run_id)
        self._add(event.body, data)
        if self._state is None:
            self._state = _created(status, event, self.chain_head)
        else:
            self._state = _apply(self._moved_on(self._state, status), event)


def advance(state: RunState | None, event: RunEvent, data: bytes) -> RunState:
    """The state after `event`, whose stored bytes are `data`. `state` is None before the first. Raises like `Fold`."""
    fold = Fold(state)
    fold.take(event, data)
    assert fold.state is not None
    return fold.state


def _unlawful(state: RunState | None, event: RunEvent, fault: str) -> Refusal:
    refusal = invalid_transition(state.status if state else None, event.body)
    text = f"event {event.seq}, {event.type}, can't follow: {fault}"
    return Refusal(refusal.reason, text, metadata=refusal.metadata)


def invalid_transition(status: RunStatus | None, body: EventBody) -> Refusal:
    """The refusal of `body` in `status`: metadata from, event and allowed (comma-separated, maybe empty)."""
    origin, what = str(status or "absent"), trigger(body)
    allowed = ",".join(allowed_triggers(status))
    text = f"a run that is {origin} does not take {what}" + (f"; it takes {allowed}" if allowed else "")
    return Refusal("invalid_transition", text, metadata={"from": origin, "event": what, "allowed": allowed})


_MOVING = frozenset({RunCreated, RunStarted, RunCancelRequested, ExecutorLost, AttemptFailed, RunFinished})
"""The events that change more of a state than numbers, chain and totals."""


def _apply(state: RunState, event: RunEvent) -> RunState:
    """The state after an event of `_MOVING`; `state` already has the new status, number, chain and totals."""
    match event.body:
        case RunStarted(worker_id, epoch, attempt):
            deadline_ns = state.deadline_ns if state.attempt else _after(event, state.queue.run_timeout_ms)
            return replace(
                state,
                worker_id=worker_id,
                lease_epoch=epoch,
                attempt=attempt,
                fenced=False,
                deadline_ns=deadline_ns,
            )
        case RunCancelRequested(_, reason):
            return replace(state, cancel_requested_ns=event.recorded_ns, cancel_reason=reason)
        case ExecutorLost(requeued=requeued):
            return replace(state, fenced=True, ending=not requeued)
        case AttemptFailed(retry_ns=retry_ns):
            return replace(state, fenced=True, failures=state.failures + 1, not_before_ns=retry_ns)
        case RunFinished() as finish:
            # A finish by the authority takes the lease back: nothing that the holder still writes counts.
            fenced = state.fenced or event.lease_epoch == AUTHORITY
            return replace(state, finish=finish, finish_ns=event.recorded_ns, fenced=fenced)
        case _:
            return state


def _created(status: RunStatus, event: RunEvent, chain_head: bytes) -> RunState:
    assert isinstance(event.body, RunCreated)  # the table allows nothing else
    spec = event.body.spec
    queue = spec.queue
    not_before_ns = None if queue.not_before_ns is None else _storable(queue.not_before_ns)
    return RunState(
        run_id=event.run_id,
        org_id=event.body.org_id,
        user_id=event.body.user_id,
        status=status,
        latest_seq=1,
        chain_head=chain_head,
        create_ns=event.recorded_ns,
        queue=queue,
        not_before_ns=not_before_ns,
        thread_id=spec.thread_id if spec.thread_policy else "",
        parent_run_id=event.body.parent_run_id,
        deadline_ns=_after(event, queue.start_timeout_ms, not_before_ns or 0),
    )


def _storable(time_ns: int) -> int:
    """A time as states hold it: in whole microseconds, from 1970 on, and before what databases call infinity."""
    return min(max(time_ns // 1000 * 1000, 0), LAST_NS)


def _after(event: RunEvent, timeout_ms: int, not_before_ns: int = 0) -> int | None:
    """The end of a timeout that starts at the event or at `not_before_ns`, the later of both; None for no limit."""
    if not timeout_ms:
        return None
    return min(max(event.recorded_ns, not_before_ns) + timeout_ms * MS_NS, LAST_NS)


def _amounts(body: EventBody) -> tuple[tuple[str, int], ...]:
    """The amounts that an event adds to the totals, with the totals' names."""
    match body:
        case TextDelta():
            return (("text_bytes", len(body.data)),)
        case Message():
            return (("messages", 1),)
        case ToolCall():
            return (("tool_calls", 1),)
        case ToolResult(failed=failed):
            return (("tool_results", 1), ("tool_failures", int(failed)))
        case Verification(passed=passed):
            return (("verifications", 1), ("verification_failures", int(not passed)))
        case Usage(_, read, written, cached):
            return (("input_tokens", read), ("output_tokens", written), ("cached_input_tokens", cached))
        case _:
            return ()


def replay(events: Iterable[bytes]) -> RunState | None:
    """The state that stored events lead to; None for no events. Raises Refusal as `Fold` and `decode_event` do."""
    fold = Fold(None)
    for data in events:
        fold.take(wire.decode_event(data), data)
    return fold.state
