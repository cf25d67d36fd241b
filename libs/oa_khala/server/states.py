"""Where a connection stands: a table of next states. Anything that is not in this table is refused.

                Hello               Grant
    AWAIT_HELLO -----> VERIFYING -----------> OPEN --+  Subscribe, Unsubscribe, Ping
                                              |  ^ <-+
                                 RefreshToken |  | Grant
                                              v  |
                                           REFRESHING

A Grant is the answer to the token of Hello or RefreshToken; frames that the client sends before it wait. A Refusal
leads from every state to CLOSED: a frame that is not in the table, a token that is invalid or revoked, a deadline.
"""

from enum import StrEnum

from oa_base.refusal import Refusal
from oa_khala.frames import ClientFrame, Hello, Ping, RefreshToken, Subscribe, Unsubscribe
from oa_khala.server.admission import Grant

Happening = ClientFrame | Grant | Refusal


class State(StrEnum):
    """Where a connection stands."""

    AWAIT_HELLO = "await_hello"
    VERIFYING = "verifying"  # Hello came, its token is being verified
    OPEN = "open"
    REFRESHING = "refreshing"  # open, and a new token is being verified
    CLOSED = "closed"


NEXT: dict[State, dict[type[Happening], State]] = {
    State.AWAIT_HELLO: {Hello: State.VERIFYING, Refusal: State.CLOSED},
    State.VERIFYING: {Grant: State.OPEN, Refusal: State.CLOSED},
    State.OPEN: {
        Subscribe: State.OPEN,
        Unsubscribe: State.OPEN,
        Ping: State.OPEN,
        RefreshToken: State.REFRESHING,
        Refusal: State.CLOSED,
    },
    State.REFRESHING: {Grant: State.OPEN, Refusal: State.CLOSED},
    State.CLOSED: {},
}


def expects(state: State, kind: type[Happening]) -> bool:
    """Whether the table has an entry for this kind in `state`."""
    return kind in NEXT[state]


def next_state(state: State, happening: Happening) -> State:
    """Return the state that `happening` leads to from `state`. Raises Refusal `protocol_violation`."""
    kind = type(happening)
    if not expects(state, kind):
        name = kind.__name__
        text = f"{name} is not allowed here; say Hello once, and wait for the answer to a token before the next"
        if state is State.AWAIT_HELLO:
            text = "the first frame must be Hello"
        raise Refusal("protocol_violation", text, field="body")
    return NEXT[state][kind]
