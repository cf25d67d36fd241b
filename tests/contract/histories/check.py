"""Replaying a recorded history with today's code: everything that was recorded has to come out again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.events import RunEvent
from oa_runlog.proof.chain import chain_over
from oa_runlog.state import RunState, reducer
from oa_runlog.state.form import state_form, state_hash
from oa_runlog.state.transitions import trigger
from tests.contract.histories.history import Attempted, History, Stored

Pair = tuple[str, str]
"""A status ("absent" for a run that does not exist) and a trigger."""

NOW_ALLOWED: Mapping[Pair, str] = MappingProxyType({})
"""Pairs that an earlier release refused, each with the release that began to allow it: older attempts don't count."""


class HistoryChanged(AssertionError):
    """Today's code does not make of a history what was made of it when it was recorded."""


def check(
    history: History,
    *,
    decode: Callable[[bytes], RunEvent] = wire.decode_event,
    now_allowed: Mapping[Pair, str] = NOW_ALLOWED,
) -> None:
    """Replay `history`. Raises HistoryChanged, with the line that tells."""
    state: RunState | None = None
    for number, line in enumerate(history.lines, start=2):  # line 1 of the file is its header
        try:
            event = decode(line.data)
            if isinstance(line, Stored):
                state = _advance(state, event, line, history)
            else:
                _refuse(state, event, line, history, now_allowed)
        except Refusal as refusal:
            raise HistoryChanged(f"line {number}: today this is refused: {refusal}") from refusal
        except HistoryChanged as changed:
            raise HistoryChanged(f"line {number}: {changed}") from None
    _check_end(state, history)


def _advance(state: RunState | None, event: RunEvent, line: Stored, history: History) -> RunState:
    _same("run", event.run_id, history.run_id)
    _same("type", str(event.type), line.type)
    after = reducer.advance(state, event, line.data)
    _same("status", str(after.status), line.status)
    _same("state hash", state_hash(after), line.state_hash)
    return after


def _refuse(
    state: RunState | None, event: RunEvent, line: Attempted, history: History, now_allowed: Mapping[Pair, str]
) -> None:
    _same("event", trigger(event.body), line.trigger)
    if (line.origin, line.trigger) in now_allowed:
        return
    try:
        reducer.advance(state, event, line.data)
    except Refusal as refusal:
        _same("reason", refusal.reason, line.reason)
        _same("status", refusal.metadata.get("from", ""), line.origin)
        # What a later release has beside what this one knew is no contradiction to it.
        then = {what for what in allowed_in(refusal) if what in history.triggers}
        known = {what for what in then if (line.origin, what) not in now_allowed}
        _same("what is allowed", sorted(known), sorted(line.allowed))
        return
    raise HistoryChanged(f"{line.trigger} is accepted today; it was refused with {line.reason}")


def allowed_in(refusal: Refusal) -> tuple[str, ...]:
    """What the refusal of a transition says is allowed instead, sorted."""
    return tuple(sorted(what for what in refusal.metadata.get("allowed", "").split(",") if what))


def _check_end(state: RunState | None, history: History) -> None:
    _same("state at the end", state_form(state), history.state)
    _same("state hash at the end", state_hash(state), history.state_hash)
    _same("chain head", chain_over(history.run_id, history.events).hex(), history.chain_head)
    if state is not None:
        _same("chain head of the state", state.chain_head.hex(), history.chain_head)


def _same(what: str, today: object, recorded: object) -> None:
    if today != recorded:
        raise HistoryChanged(f"{what}: recorded {recorded!r}, today {today!r}")
