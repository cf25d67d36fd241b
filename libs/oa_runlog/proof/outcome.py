"""Checking that events lead to what a receipt states. `verify` checks the signatures."""

from __future__ import annotations

from oa_base.refusal import Refusal
from oa_runlog.events import RunEvent
from oa_runlog.proof.receipt import ReceiptFacts, facts_of
from oa_runlog.state import RunState
from oa_runlog.state.reducer import advance


def next_state(state: RunState | None, event: RunEvent, data: bytes) -> RunState:
    """The state after an event, whose stored bytes are `data`. Raises Refusal `outcome_mismatch` if it can't follow."""
    try:
        return advance(state, event, data)
    except Refusal as refusal:
        metadata = {"seq": str(event.seq)}
        raise Refusal("outcome_mismatch", f"the events are no run: {refusal.message}", metadata=metadata) from None


def finished(state: RunState | None, facts: ReceiptFacts) -> RunState:
    """The state that the events led to, if it is the one that the receipt states. Raises Refusal `outcome_mismatch`."""
    if state is None or state.finish is None or facts_of(state, facts.log_epoch, facts.kid) != facts:
        raise Refusal("outcome_mismatch", "the events lead to another outcome or other totals than the receipt's")
    return state
