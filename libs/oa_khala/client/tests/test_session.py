"""The client session, command by command: topics, and what is applied of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_khala import frames
from oa_khala.client.commands import (
    Apply,
    ClientLimits,
    Connect,
    Disconnect,
    Live,
    NeedToken,
    Resync,
    Send,
    TopicFailed,
)
from oa_khala.client.states import State
from oa_khala.client.tests.driver import Driver, T, U
from oa_khala.client.tests.transcripts import Concatenated
from oa_khala.client.topics import Counts
from oa_khala.frames import Cursor, Plan, TopicState


def test_a_new_client_gets_a_token_connects_subscribes_and_catches_up() -> None:
    driver = Driver(T)
    assert driver.do("start") == [NeedToken(frozenset({T}))]
    assert driver.token(T) == [Connect(1, 0)]
    assert driver.do("connected", 1) == [Send(1, frames.Hello("token", "dev_1", "test/1"))]
    assert driver.welcome() == [Send(1, frames.Subscribe(((T, None),)))]
    assert driver.frame(frames.Subscribed(T, "e1", 0, 2, Plan.REPLAY, 0)) == []
    assert driver.frame(frames.Event(T, 1, b"a")) == [Apply(T, Cursor("e1", 1), b"a", 1)]
    assert driver.frame(frames.Event(T, 2, b"b")) == [Apply(T, Cursor("e1", 2), b"b", 1)]
    assert driver.frame(frames.CaughtUp(T, 2)) == [Live(T, 2)]
    assert driver.session.cursor(T) == Cursor("e1", 2)


def test_repetitions_are_dropped_and_a_hole_is_subscribed_again_from_the_applied_seq() -> None:
    driver = Driver(T).open(T).following()
    assert driver.events(1, 2, 1, 2, 3) == [1, 2, 3]
    assert driver.events(5) == [1, 2, 3]
    assert driver.sent() == [frames.Subscribe(((T, Cursor("e1", 3)),))]
    assert driver.events(6, 4) == [1, 2, 3], "nothing counts before SUBSCRIBED"
    driver.following(from_seq=3)
    assert driver.events(4, 5, 6) == [1, 2, 3, 4, 5, 6]


def test_caught_up_beyond_what_was_applied_is_a_hole() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1)
    assert driver.frame(frames.CaughtUp(T, 2)) == [
        Send(driver.session.generation, frames.Subscribe(((T, Cursor("e1", 1)),)))
    ]


def test_a_persisted_cursor_is_resumed_after_a_restart() -> None:
    driver = Driver(T, cursor=Cursor("e1", 7)).open(T)
    assert driver.sent() == [frames.Subscribe(((T, Cursor("e1", 7)),))]
    driver.following(from_seq=7)
    assert driver.events(7, 8) == [8]


def test_a_cursor_is_bound_to_what_was_applied() -> None:
    driver = Driver(T, chains=Concatenated()).open(T).following()
    driver.events(1, 2)
    assert [(apply.follows, apply.cursor.chain) for apply in driver.applied] == [(b"0", b"01"), (b"01", b"012")]
    driver.events(4)
    assert driver.sent() == [frames.Subscribe(((T, Cursor("e1", 2, b"012")),))]


@pytest.mark.parametrize(
    ("topic", "cursor", "from_seq"),
    [(U, None, 0), (T, None, 4), (T, Cursor("e1", 4), 4)],
    ids=["no chain", "from a floor", "a cursor of old"],
)
def test_where_the_chain_is_not_known_it_stays_empty(topic: str, cursor: Cursor | None, from_seq: int) -> None:
    driver = Driver(topic, cursor=cursor, chains=Concatenated()).open(topic)
    driver.frame(frames.Subscribed(topic, "e1", from_seq, from_seq, Plan.REPLAY, from_seq))
    driver.frame(frames.Event(topic, from_seq + 1, b"x"))
    assert [apply.cursor for apply in driver.applied] == [Cursor("e1", from_seq + 1)]


@pytest.mark.parametrize(
    "reason", ["epoch_mismatch", "cursor_ahead_of_head", "retention_floor_breach", "replay_budget_exceeded"]
)
def test_a_stale_cursor_drops_the_state_and_subscribes_without_one(reason: str) -> None:
    driver = Driver(T, cursor=Cursor("old", 7)).open(T)
    out = driver.frame(frames.ErrorFrame(T, reason, "stale", stale=TopicState("e2", 0, 3)))
    assert out == [Resync(T, reason), Send(driver.session.generation, frames.Subscribe(((T, None),)))]
    driver.following(epoch="e2")
    assert driver.events(1, 2) == [1, 2]
    assert driver.session.cursor(T) == Cursor("e2", 2)


def test_subscribed_in_another_epoch_than_the_cursor_is_never_continued() -> None:
    driver = Driver(T, cursor=Cursor("e1", 7)).open(T)
    out = driver.frame(frames.Subscribed(T, "e2", 0, 9, Plan.REPLAY, 7))
    assert out == [Resync(T, "epoch_mismatch"), Send(driver.session.generation, frames.Subscribe(((T, None),)))]


def test_a_topic_error_fails_retries_or_reconnects_as_the_catalogue_says() -> None:
    driver = Driver(T, U).open(T, U)
    driver.frame(frames.ErrorFrame(U, "forbidden_topic", "no"))
    assert driver.out == [TopicFailed(U, "forbidden_topic", "no")]
    driver.frame(frames.ErrorFrame(T, "unavailable", "runtime is away", retry_after_ms=700))
    assert driver.out == []
    assert driver.session.wake_at_ms == 700
    driver.now_ms = 700
    assert driver.do("timer") == [Send(driver.session.generation, frames.Subscribe(((T, None),)))]


def test_a_topic_that_was_caught_up_with_waits_as_if_for_the_first_time() -> None:
    driver = Driver(T).open(T)
    for _ in range(2):
        driver.frame(frames.ErrorFrame(T, "unavailable", "runtime is away"))
        assert driver.session.wake_at_ms == driver.now_ms + 125
        driver.now_ms += 125
        driver.do("timer")
        driver.following().frame(frames.CaughtUp(T, 0))


def test_a_missed_tail_shows_in_two_heartbeats_without_progress() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1)
    beat = frames.Heartbeat((frames.TopicHead(T, 3, "e1"),), 0)
    assert driver.frame(beat) == []
    driver.events(2)
    assert driver.frame(beat) == [], "there was progress"
    assert driver.frame(beat) == [Send(1, frames.Subscribe(((T, Cursor("e1", 2)),)))]


def beyond_repair(driver: Driver) -> None:
    """As often as the limit allows, and once more, the gateway delivers something that can't be next."""
    for _ in range(ClientLimits().max_repairs + 1):
        driver.following().frame(frames.Event(T, 9, b""))


def test_a_topic_that_can_not_be_repaired_is_asked_for_later_and_then_elsewhere() -> None:
    driver = Driver(T).open(T)
    for wait_ms in (125, 250, 500):
        beyond_repair(driver)
        assert driver.out == []
        assert driver.session.wake_at_ms == driver.now_ms + wait_ms
        driver.now_ms += wait_ms
        assert driver.do("timer") == [Send(1, frames.Subscribe(((T, Cursor("e1", 0)),)))]
    beyond_repair(driver)
    assert driver.out == [Disconnect(1), Connect(driver.session.generation, 1_000)]


def test_progress_forgets_what_could_not_be_repaired() -> None:
    driver = Driver(T).open(T)
    beyond_repair(driver)
    driver.now_ms += 125
    driver.do("timer")
    driver.following()
    driver.events(1)
    driver.following(from_seq=1)
    for _ in range(ClientLimits().max_repairs + 1):
        driver.following(from_seq=1).frame(frames.Event(T, 9, b""))
    assert driver.session.wake_at_ms == driver.now_ms + 125


def test_what_came_is_counted_and_only_what_was_missing_as_repaired() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1, 2)
    driver.frame(frames.CaughtUp(T, 2))
    driver.events(3, 3)
    assert driver.session.counts == Counts(applied=3, replayed=2, repeated=1)
    driver.cut()
    driver.do("connected", driver.session.generation)
    driver.welcome()
    driver.following(from_seq=3).events(4)
    driver.frame(frames.CaughtUp(T, 4))
    assert driver.session.counts == Counts(applied=4, replayed=3, repeated=1), "a cut loses nothing that was there"
    driver.events(6)
    driver.following(from_seq=4).events(5, 6)
    driver.frame(frames.CaughtUp(T, 6))
    driver.events(7)
    assert driver.session.counts == Counts(applied=7, replayed=5, repaired=2, repeated=1)


def test_rewind_has_everything_after_the_stores_cursor_sent_again() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1, 2, 3)
    assert driver.do("rewind", T, Cursor("e1", 1)) == [Send(1, frames.Subscribe(((T, Cursor("e1", 1)),)))]
    driver.following(from_seq=1)
    assert driver.events(2, 3) == [1, 2, 3, 2, 3]


def test_unsubscribe_tells_the_gateway_and_forgets_the_topic() -> None:
    driver = Driver(T).open(T).following()
    assert driver.do("unsubscribe", T) == [Send(1, frames.Unsubscribe((T,)))]
    assert driver.events(1) == []


def test_an_answer_to_an_earlier_subscribe_skips_nothing() -> None:
    driver = Driver(T).open(T)
    driver.do("unsubscribe", T)
    driver.do("subscribe", T, Cursor("e1", 7))
    driver.do("unsubscribe", T)
    driver.do("subscribe", T, None)
    late = driver.frame(frames.Subscribed(T, "e1", 0, 9, Plan.REPLAY, 7))
    assert late == [Send(1, frames.Subscribe(((T, None),)))], "it was asked for from the start"
    driver.events(8, 9)
    for _ in range(2):  # of the second Subscribe, and the third
        driver.frame(frames.Subscribed(T, "e1", 0, 9, Plan.REPLAY, 0))
    assert driver.events(1, 2) == [1, 2]


@pytest.mark.parametrize("plan", Plan, ids=lambda plan: plan.value)
def test_an_answer_to_an_earlier_subscribe_drops_nothing(plan: Plan) -> None:
    driver = Driver(T, cursor=Cursor("e1", 7)).open(T)
    driver.do("rewind", T, Cursor("e1", 4))
    late = driver.frame(frames.Subscribed(T, "e1", 0, 9, plan, 7))
    assert late == [Send(1, frames.Subscribe(((T, Cursor("e1", 4)),)))], "what the store holds up to 4 is right"
    driver.events(8, 9)
    for _ in range(2):  # of the second Subscribe, and the third
        driver.frame(frames.Subscribed(T, "e1", 0, 9, Plan.REPLAY, 4))
    assert driver.events(5, 6) == [5, 6]


def test_a_topic_without_a_cursor_begins_at_its_floor() -> None:
    driver = Driver(T).open(T)
    assert driver.frame(frames.Subscribed(T, "e1", 4, 9, Plan.REPLAY, 4)) == []
    assert driver.events(5, 6) == [5, 6]


def test_with_no_topic_there_is_nothing_to_connect_for() -> None:
    driver = Driver()
    assert driver.do("start") == []
    assert driver.do("subscribe", T, None) == [NeedToken(frozenset({T}))]


def test_more_topics_than_fit_one_frame_are_split() -> None:
    names = [f"run:run_01J9ZQ6T5W3M8K2N4P7R1S{i:04d}:events" for i in range(130)]
    driver = Driver(*names, grants=("run:org_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events",))
    driver.open("run:org_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events")
    assert [len(frame.topics) for frame in driver.sent() if isinstance(frame, frames.Subscribe)] == [128, 2]


inputs = st.one_of(
    st.builds(frames.Event, st.just(T), st.integers(1, 12), st.just(b"")),
    st.builds(frames.Subscribed, st.just(T), st.sampled_from(["a", "b"]), st.just(0), st.just(9),
              st.sampled_from([Plan.LIVE, Plan.REPLAY]), st.integers(0, 12)),
    st.builds(frames.CaughtUp, st.just(T), st.integers(0, 12)),
    st.builds(frames.ErrorFrame, st.just(T), st.sampled_from(["epoch_mismatch", "unavailable"]), st.just("")),
    st.builds(frames.Heartbeat, st.just((frames.TopicHead(T, 12, "a"),)), st.just(0)),
    st.sampled_from(["cut", "timer", "sleep"]),
)  # fmt: skip


@given(st.lists(inputs, max_size=60))
def test_whatever_a_gateway_says_each_lineage_is_applied_without_repetition_or_hole(
    steps: list[frames.ServerFrame | str],
) -> None:
    driver = Driver(T).open(T)
    last: Cursor | None = None
    for step in steps:
        if not isinstance(step, str):
            driver.frame(step)
        elif step == "cut":
            driver.cut()
        elif step == "timer":
            driver.now_ms += 1_000
            driver.do("timer")
        else:
            driver.do("suspended")
            driver.do("resumed")
        if driver.session.state is State.CONNECTING:
            driver.do("connected", driver.session.generation)
            driver.welcome()
        for command in driver.out:
            if isinstance(command, Resync):
                last = None
            elif isinstance(command, Apply):
                assert last is None or command.cursor == Cursor(last.epoch, last.applied_seq + 1)
                last = command.cursor
