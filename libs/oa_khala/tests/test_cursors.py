"""Where a subscription starts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_khala.cursors import Stale, Start, as_asked, plan_subscription
from oa_khala.frames import Cursor, Plan, TopicState
from oa_khala.topics import TOPIC_CLASSES, TopicClass

BUDGET = 100
PLAIN = TopicState("e", 10, 500)
WITH_SNAPSHOT = TopicState("e", 10, 500, snapshot_available=True)


@pytest.mark.parametrize(
    ("cursor", "state", "wanted"),
    [
        (None, PLAIN, Start(Plan.REPLAY, 10)),
        (None, TopicState("e", 0, 0), Start(Plan.LIVE, 0)),
        (None, TopicState("e", 7, 7), Start(Plan.LIVE, 7)),
        (None, WITH_SNAPSHOT, Start(Plan.SNAPSHOT, 500)),
        (Cursor("e", 500), PLAIN, Start(Plan.LIVE, 500)),
        (Cursor("e", 499), PLAIN, Start(Plan.REPLAY, 499)),
        (Cursor("e", 10), PLAIN, Start(Plan.REPLAY, 10)),
        (Cursor("e", 9), PLAIN, Stale("retention_floor_breach")),
        (Cursor("e", 0), PLAIN, Stale("retention_floor_breach")),
        (Cursor("e", 0), TopicState("e", 0, 3), Start(Plan.REPLAY, 0)),
        (Cursor("e", 501), PLAIN, Stale("cursor_ahead_of_head")),
        (Cursor("f", 20), PLAIN, Stale("epoch_mismatch")),
        (Cursor("", 20), PLAIN, Stale("epoch_mismatch")),
        (Cursor("f", 501), PLAIN, Stale("epoch_mismatch")),
        (Cursor("e", 400), WITH_SNAPSHOT, Start(Plan.REPLAY, 400)),
        (Cursor("e", 399), WITH_SNAPSHOT, Stale("replay_budget_exceeded")),
    ],
)
def test_each_cursor_has_its_plan_or_is_stale(cursor: Cursor | None, state: TopicState, wanted: Start | Stale) -> None:
    assert plan_subscription(cursor, state, BUDGET) == wanted


def test_a_snapshot_on_request_is_there_for_those_who_take_it_alone() -> None:
    state = TopicState("e", 10, 500, snapshot_on_request=True)
    assert plan_subscription(None, as_asked(state, True), BUDGET) == Start(Plan.SNAPSHOT, 500)
    assert plan_subscription(Cursor("e", 399), as_asked(state, True), BUDGET) == Stale("replay_budget_exceeded")
    assert plan_subscription(None, as_asked(state, False), BUDGET) == Start(Plan.REPLAY, 10)
    assert plan_subscription(Cursor("e", 399), as_asked(state, False), BUDGET) == Start(Plan.REPLAY, 399)
    assert as_asked(PLAIN, True) == PLAIN
    assert as_asked(WITH_SNAPSHOT, False) == WITH_SNAPSHOT


small = st.integers(0, 30)


@given(st.none() | st.builds(Cursor, st.sampled_from(["", "e", "f"]), small), small, small, st.booleans())
def test_what_is_served_lies_in_the_topic_and_what_is_stale_can_be_started_afresh(
    cursor: Cursor | None, floor: int, length: int, snapshot: bool
) -> None:
    state = TopicState("e", floor, floor + length, snapshot)
    plan = plan_subscription(cursor, state, 10)
    if isinstance(plan, Stale):
        assert cursor is not None
        plan = plan_subscription(None, state, 10)
    assert isinstance(plan, Start)
    assert floor <= plan.from_seq <= state.head
    assert (plan.plan is Plan.LIVE) <= (plan.from_seq == state.head)


@pytest.mark.parametrize("topic_class", TOPIC_CLASSES)
def test_every_class_has_a_budget_that_its_snapshot_topics_can_reach(topic_class: TopicClass) -> None:
    budget = topic_class.replay_budget
    state = TopicState("e", 0, budget + 1, snapshot_available=True)
    assert plan_subscription(Cursor("e", 0), state, budget) == Stale("replay_budget_exceeded")
    assert plan_subscription(Cursor("e", 1), state, budget) == Start(Plan.REPLAY, 1)
