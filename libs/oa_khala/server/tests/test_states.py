"""The table of states, looked at from every state."""

from typing import get_args

import pytest

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.server.admission import GRANTS_NOTHING, Grant
from oa_khala.server.states import NEXT, State, expects, next_state

FRAMES: dict[type, frames.ClientFrame] = {
    type(frame): frame
    for frame in (
        frames.Hello("token", "dev_1", "oa-cli/0.1.0"),
        frames.Subscribe(()),
        frames.Unsubscribe(()),
        frames.RefreshToken("token"),
        frames.Ping(1),
    )
}


def test_every_kind_of_frame_is_somewhere_in_the_table() -> None:
    assert set(FRAMES) == set(get_args(frames.ClientFrame))
    assert {kind for row in NEXT.values() for kind in row} == {*FRAMES, Grant, Refusal}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=lambda frame: type(frame).__name__)
def test_what_is_not_in_the_table_is_a_violation(state: State, frame: frames.ClientFrame) -> None:
    if expects(state, type(frame)):
        assert next_state(state, frame) is NEXT[state][type(frame)]
        return
    with pytest.raises(Refusal) as refused:
        next_state(state, frame)
    assert (refused.value.reason, refused.value.field) == ("protocol_violation", "body")


def test_a_grant_opens_and_a_refusal_closes_whatever_is_not_closed() -> None:
    for state in set(State) - {State.CLOSED}:
        assert next_state(state, Refusal("idle_timeout", "no")) is State.CLOSED
    for state in (State.VERIFYING, State.REFRESHING):
        assert next_state(state, GRANTS_NOTHING) is State.OPEN
    assert NEXT[State.CLOSED] == {}


def test_every_state_can_be_reached() -> None:
    reached, found = {State.AWAIT_HELLO}, 0
    while len(reached) > found:
        found = len(reached)
        reached |= {state for one in reached for state in NEXT[one].values()}
    assert reached == set(State)
