"""The states of a client session and the steps between them. A step that is not in the table does not happen.

      START            DIAL              CONNECTED             WELCOMED
IDLE ───────▶ NO_TOKEN ──────▶ CONNECTING ─────────▶ GREETING ─────────▶ OPEN
               ▲    ▲              │                    │                 │
        RESUME │    └──────────────┴───────── LOST ─────┴─────────────────┘
           SUSPENDED

SUSPEND leads from NO_TOKEN, CONNECTING, GREETING and OPEN to SUSPENDED.
STOP leads from every state to STOPPED, and nothing leads out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where the session stands."""

    IDLE = "idle"  # not started
    NO_TOKEN = "no_token"  # waiting for a token to connect with
    CONNECTING = "connecting"  # Connect has been asked for
    GREETING = "greeting"  # Hello is out
    OPEN = "open"  # WELCOME came
    SUSPENDED = "suspended"
    STOPPED = "stopped"


class Step(Enum):
    """What changes the state."""

    START = "start"
    DIAL = "dial"  # a token that is good for a connection is available
    CONNECTED = "connected"
    WELCOMED = "welcomed"
    LOST = "lost"  # the connection ended or could not be made
    SUSPEND = "suspend"
    RESUME = "resume"
    STOP = "stop"  # asked to, or trying again can't help


NEXT: Mapping[State, Mapping[Step, State]] = {
    State.IDLE: {Step.START: State.NO_TOKEN, Step.STOP: State.STOPPED},
    State.NO_TOKEN: {Step.DIAL: State.CONNECTING, Step.SUSPEND: State.SUSPENDED, Step.STOP: State.STOPPED},
    State.CONNECTING: {
        Step.CONNECTED: State.GREETING,
        Step.LOST: State.NO_TOKEN,
        Step.SUSPEND: State.SUSPENDED,
        Step.STOP: State.STOPPED,
    },
    State.GREETING: {
        Step.WELCOMED: State.OPEN,
        Step.LOST: State.NO_TOKEN,
        Step.SUSPEND: State.SUSPENDED,
        Step.STOP: State.STOPPED,
    },
    State.OPEN: {Step.LOST: State.NO_TOKEN, Step.SUSPEND: State.SUSPENDED, Step.STOP: State.STOPPED},
    State.SUSPENDED: {Step.RESUME: State.NO_TOKEN, Step.STOP: State.STOPPED},
    State.STOPPED: {Step.STOP: State.STOPPED},
}

RUNNING = frozenset(state for state, steps in NEXT.items() if Step.SUSPEND in steps)
"""States in which a connection is wanted."""


class WrongStep(Exception):
    """The step is not possible in this state: a defect of the session, because it drops reports that come too late."""


def allows(state: State, step: Step) -> bool:
    """Whether `step` can happen in `state`."""
    return step in NEXT[state]


def after(state: State, step: Step) -> State:
    """Return the state that `step` leads to. Raises WrongStep."""
    if not allows(state, step):
        raise WrongStep(f"{step.name} can't happen in {state.name}")
    return NEXT[state][step]
