"""Snapshots on their way to a client: what every client takes in one frame, and the rest in parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_khala import frames
from oa_khala.frames import Cursor, Plan, TopicState
from oa_khala.server.admission import Grant
from oa_khala.server.commands import ReadSnapshot, SendFrame, Serve, Subscription
from oa_khala.server.limits import SessionLimits
from oa_khala.server.parts import UnsentSnapshot
from oa_khala.server.subscriptions import Subscriptions

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
U = "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"
ON_REQUEST = TopicState("e", 2, 7, snapshot_on_request=True)
LIST = TopicState("e", 2, 7, snapshot_available=True)


def subscribed(topic: str, state: TopicState, takes: bool) -> tuple[Subscriptions, Subscription, list[object]]:
    """A subscription without a cursor, and what it is answered."""
    subscriptions = Subscriptions(SessionLimits(snapshot_part_bytes=4), 0)
    scopes, topics = frozenset({"runs.read"}), frozenset({T, U})
    subscriptions.granted(Grant("usr_a", "", scopes, topics, "ses_1", "", "jti", 1))
    subscriptions.subscribe(frames.Subscribe(((topic, None),), (topic,) if takes else ()), 0)
    subscription = subscriptions.by_topic[topic]
    return subscriptions, subscription, list(subscriptions.ready(subscription, state, "usr_a", ""))


@given(st.binary(max_size=40), st.integers(1, 12))
def test_parts_joined_are_the_snapshot_and_none_is_larger_than_it_may_be(payload: bytes, size: int) -> None:
    unsent = UnsentSnapshot(T, 3, payload, size)
    sent = [unsent.next() for _ in range(unsent.parts)]
    assert b"".join(frame.payload for frame in sent) == payload
    assert all(len(frame.payload) <= size for frame in sent)
    numbered = [(number, len(sent)) for number in range(1, len(sent) + 1)]
    assert [(frame.part, frame.parts) for frame in sent] == (numbered if len(sent) > 1 else [(0, 0)])


def test_a_run_begins_with_its_snapshot_for_those_who_take_it_and_with_its_events_for_others() -> None:
    _, subscription, out = subscribed(T, ON_REQUEST, True)
    assert out == [ReadSnapshot(subscription)]
    _, subscription, out = subscribed(T, ON_REQUEST, False)
    assert out == [SendFrame(frames.Subscribed(T, "e", 2, 7, Plan.REPLAY, 2)), Serve(subscription)]


def test_delivery_begins_behind_the_last_part() -> None:
    subscriptions, subscription, _ = subscribed(T, ON_REQUEST, True)
    out = subscriptions.snapshot(subscription, ON_REQUEST, 5, b"123456789", b"c" * 32)
    first = frames.Snapshot(T, 5, b"1234", part=1, parts=3)
    assert out == [SendFrame(frames.Subscribed(T, "e", 2, 7, Plan.SNAPSHOT, 5, b"c" * 32)), SendFrame(first)]
    assert subscription.next_seq == 0, "the feed may move, and nothing is delivered"
    assert not subscriptions.served
    assert subscriptions.snapshot_part(subscription) == [SendFrame(frames.Snapshot(T, 5, b"5678", part=2, parts=3))]
    last = frames.Snapshot(T, 5, b"9", part=3, parts=3)
    assert subscriptions.snapshot_part(subscription) == [SendFrame(last), Serve(subscription)]
    assert (subscription.next_seq, subscription.unsent) == (6, None)
    assert subscriptions.served == ((T, "e"),)
    assert subscriptions.snapshot_part(subscription) == []
    assert subscriptions.delivered(subscription, 6, 2) == [SendFrame(frames.CaughtUp(T, 7))]


@pytest.mark.parametrize("takes", [True, False])
def test_a_client_that_takes_no_parts_gets_a_list_in_one_frame(takes: bool) -> None:
    subscriptions, subscription, _ = subscribed(U, LIST, takes)
    out = subscriptions.snapshot(subscription, LIST, 7, b"123456789")
    sent = [command.frame for command in out if isinstance(command, SendFrame)]
    whole = [frames.Snapshot(U, 7, b"123456789"), frames.CaughtUp(U, 7)]
    assert sent[1:] == ([frames.Snapshot(U, 7, b"1234", part=1, parts=3)] if takes else whole)


def test_what_ends_a_subscription_ends_its_parts() -> None:
    subscriptions, subscription, _ = subscribed(T, ON_REQUEST, True)
    subscriptions.snapshot(subscription, ON_REQUEST, 5, b"123456789")
    subscriptions.stale(subscription, "epoch_mismatch", TopicState("f", 0, 1))
    assert subscription.unsent is None
    assert subscriptions.snapshot_part(subscription) == []


@pytest.mark.parametrize("takes", [True, False])
def test_a_stale_cursor_is_told_whether_a_snapshot_comes_without_one(takes: bool) -> None:
    subscriptions, _, _ = subscribed(T, ON_REQUEST, takes)
    again = frames.Subscribe(((T, Cursor("old", 3)),), (T,) if takes else ())
    subscriptions.subscribe(again, 0)
    out = subscriptions.ready(subscriptions.by_topic[T], ON_REQUEST, "usr_a", "")
    (error,) = [command.frame for command in out if isinstance(command, SendFrame)]
    assert isinstance(error, frames.ErrorFrame)
    assert error.stale is not None
    assert (error.reason, error.stale.snapshot_available) == ("epoch_mismatch", takes)
