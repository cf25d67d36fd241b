"""Taking events in one go, in pieces, or one by one leads to the same state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.events import TextDelta, TextStream
from oa_runlog.state import RunState
from oa_runlog.state.reducer import Fold, advance, replay
from oa_runlog.tests import values
from oa_runlog.tests.records import Record, record, records


@given(records, st.data())
def test_however_events_are_taken_the_state_is_the_same(made: Record, data: st.DataObject) -> None:
    events = made.events
    one_by_one: RunState | None = None
    fold = Fold(None)
    for stored in events:
        event = wire.decode_event(stored)
        one_by_one = advance(one_by_one, event, stored)
        fold.take(event, stored)
        assert (fold.latest_seq, fold.chain_head) == (one_by_one.latest_seq, one_by_one.chain_head)
        if data.draw(st.booleans()):
            assert fold.state == one_by_one
            fold = Fold(fold.state)
    assert fold.state == one_by_one == replay(events)


def test_what_is_refused_is_not_taken() -> None:
    events = record([]).events
    fold = Fold(None)
    for stored in events[:-1]:
        fold.take(wire.decode_event(stored), stored)
    before = (fold.state, fold.latest_seq, fold.chain_head)
    body = TextDelta(TextStream.STDOUT, b"x")
    data = wire.encode_event(values.RUN_ID, 99, 1, 1, wire.encode_body(body))
    with pytest.raises(Refusal) as refused:
        fold.take(wire.decode_event(data), data)
    assert refused.value.reason == "sequence_broken"
    assert (fold.state, fold.latest_seq, fold.chain_head) == before
