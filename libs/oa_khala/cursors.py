"""Where a subscription starts: a pure function of the cursor, where the topic stands, and the replay budget.

The same inputs give the same answer on every gateway and after every restart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from oa_khala.frames import Cursor, Plan, TopicState


@dataclass(frozen=True, slots=True)
class Start:
    """Delivery starts at `from_seq + 1`, after a snapshot of `from_seq` if the plan says so."""

    plan: Plan
    from_seq: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The cursor can't be continued. `reason` is one from the catalogue."""

    reason: str


AHEAD = "cursor_ahead_of_head"
"""The reason that depends on how far whoever answers has come, and not on the topic alone."""
STALE_REASONS = frozenset({"epoch_mismatch", AHEAD, "retention_floor_breach", "replay_budget_exceeded"})
"""Reasons to refuse a cursor that waiting does not fix. The client drops its state and subscribes without a cursor."""

Broken = Callable[[Cursor, TopicState, int], bool]

# Checked in this order; the first condition that holds is the answer. A budget makes sense only where a snapshot is the
# alternative: without one, starting over would replay even more.
_STALE: tuple[tuple[str, Broken], ...] = (
    ("epoch_mismatch", lambda cursor, state, _: cursor.epoch != state.epoch),
    (AHEAD, lambda cursor, state, _: cursor.applied_seq > state.head),
    ("retention_floor_breach", lambda cursor, state, _: cursor.applied_seq < state.floor),
    (
        "replay_budget_exceeded",
        lambda cursor, state, budget: state.snapshot_available and state.head - cursor.applied_seq > budget,
    ),
)


def as_asked(state: TopicState, takes_snapshots: bool) -> TopicState:
    """Return `state` as it is for one client: a snapshot on request is available only if the client takes snapshots."""
    return replace(state, snapshot_available=True) if takes_snapshots and state.snapshot_on_request else state


def plan_subscription(cursor: Cursor | None, state: TopicState, replay_budget: int) -> Start | Stale:
    """Return how to serve a subscription with `cursor` to a topic that stands at `state`.

    `replay_budget` is the maximum number of events that a resume may replay where the topic has a snapshot.
    """
    if cursor is None:
        return _fresh(state)
    for reason, broken in _STALE:
        if broken(cursor, state, replay_budget):
            return Stale(reason)
    return _from(cursor.applied_seq, state)


def _fresh(state: TopicState) -> Start:
    return Start(Plan.SNAPSHOT, state.head) if state.snapshot_available else _from(state.floor, state)


def _from(seq: int, state: TopicState) -> Start:
    return Start(Plan.LIVE if seq == state.head else Plan.REPLAY, seq)
