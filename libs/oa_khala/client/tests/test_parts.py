"""The parts of a client session, each alone: its token, its deadlines, the wait before it connects again."""

import pytest

from oa_khala import frames
from oa_khala.client.commands import (
    Apply,
    ClientLimits,
    Command,
    Instant,
    NeedToken,
    NoChains,
    Send,
    SyncToken,
    TopicFailed,
)
from oa_khala.client.deadlines import NEVER, Deadlines, Reconnecting
from oa_khala.client.session import ClientSession
from oa_khala.client.subscriptions import Subscriptions
from oa_khala.client.tokens import Tokens
from oa_khala.client.topics import ClientTopic, Next
from oa_khala.frames import Cursor

LIMITS = ClientLimits()
T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
A, B = "run:a:events", "run:b:events"


def test_one_token_is_asked_for_at_a_time_and_none_for_no_topics() -> None:
    tokens = Tokens(LIMITS)
    assert tokens.ask(frozenset()) is None
    assert tokens.ask(frozenset({A})) == NeedToken(frozenset({A}))
    assert tokens.ask(frozenset({A, B})) is None
    assert tokens.granted(SyncToken("t", frozenset({A}), 60_000), 0) == frozenset()
    assert tokens.ask(frozenset({A, B})) == NeedToken(frozenset({A, B}))
    assert tokens.granted(SyncToken("t", frozenset({A}), 60_000), 0) == {B}


@pytest.mark.parametrize(("now_ms", "usable"), [(0, True), (54_999, True), (55_000, False)])
def test_a_token_that_is_about_to_end_is_worth_no_connection(now_ms: int, usable: bool) -> None:
    tokens = Tokens(LIMITS)
    assert not tokens.usable(now_ms)
    tokens.granted(SyncToken("t", frozenset({A}), 60_000), 0)
    assert tokens.usable(now_ms) is usable
    assert tokens.refresh_at_ms == 48_000


def test_a_connection_sees_each_token_once() -> None:
    tokens = Tokens(LIMITS)
    assert tokens.show() is None
    tokens.granted(SyncToken("t", frozenset({A}), 60_000), 0)
    assert [tokens.show(), tokens.show()] == ["t", None]
    tokens.cut()
    assert tokens.show() == "t"
    assert not tokens.refused_again()
    assert not tokens.held


def test_a_refused_token_is_asked_for_later_each_time() -> None:
    tokens = Tokens(LIMITS)
    waits = []
    for _ in range(3):
        tokens.refused(Instant(0, 0.5), 0)
        waits.append(tokens.retry_at_ms)
    assert waits == [125, 250, 500]
    tokens.ask(frozenset({A}))
    assert tokens.retry_at_ms == NEVER


def test_each_stage_of_a_connection_has_its_deadline() -> None:
    deadlines = Deadlines(LIMITS)
    assert deadlines.give_up_at_ms == NEVER
    deadlines.dialed(0, 500)
    assert deadlines.give_up_at_ms == 500 + LIMITS.connect_timeout_ms
    deadlines.greeted(1_000)
    assert deadlines.give_up_at_ms == 1_000 + LIMITS.hello_timeout_ms
    deadlines.welcomed(2_000, heartbeat_interval_ms=1_000, idle_timeout_ms=3_000)
    assert (deadlines.give_up_at_ms, deadlines.ping_at_ms) == (3_500, 3_000)
    deadlines.heard(3_000)
    assert deadlines.give_up_at_ms == 4_500
    assert [deadlines.ping(2_999), deadlines.ping(3_000), deadlines.ping(3_000), deadlines.ping(4_000)] == [
        None, 1, None, 2,
    ]  # fmt: skip
    deadlines.cut()
    assert (deadlines.give_up_at_ms, deadlines.ping_at_ms) == (NEVER, NEVER)


def test_the_next_connection_waits_for_whichever_is_later() -> None:
    waits = Reconnecting()
    waits.hold(1_000)
    waits.failed(Instant(0, 0.5), 0)
    assert waits.delay_ms(0) == 1_000
    waits.failed(Instant(0, 0.5), 3_000)
    assert [waits.delay_ms(0), waits.delay_ms(2_900), waits.delay_ms(3_100)] == [3_000, 100, 0]
    waits.reschedule(0)
    waits.failed(Instant(0, 0.5), 0)
    assert waits.delay_ms(0) == 500, "the third attempt in a row"
    waits.reschedule(0)
    waits.succeeded()
    waits.failed(Instant(0, 0.5), 0)
    assert waits.delay_ms(0) == 125


def test_a_topic_that_failed_can_be_followed_anew_and_is_not_asked_for_before() -> None:
    topics = Subscriptions(LIMITS, NoChains())
    assert topics.follow(A, None)
    assert not topics.follow(A, None)
    assert [failed.topic for failed in topics.refuse(A, "owner_mismatch")] == [A]
    assert topics.refuse(A, "owner_mismatch") == []
    assert topics.wanted == frozenset()
    assert list(topics.requests([A], frozenset({A}))) == []
    assert topics.follow(A, None)
    assert [request.topics for request in topics.requests([A], frozenset({A}))] == [((A, None),)]
    assert topics.unfollow(A)
    assert not topics.unfollow(A)


def test_a_snapshot_that_is_too_large_ends_its_topic_and_the_gateway_is_told() -> None:
    session = ClientSession("dev_1", "test/1", ClientLimits(max_snapshot_bytes=5))
    at = Instant(0)
    session.subscribe(T, None, at, True)
    session.start(at)
    session.token(SyncToken("token", frozenset({T}), 300_000), at)
    session.connected(1, at)
    session.frame(1, frames.Welcome("con_1", 25_000, 60_000, 128, 65_536, 0, 300_000), at)
    session.frame(1, frames.Subscribed(T, "e1", 0, 9, frames.Plan.SNAPSHOT, 9), at)
    assert session.frame(1, frames.Snapshot(T, 9, b"five!", part=1, parts=3), at) == []
    failed, unsubscribed = session.frame(1, frames.Snapshot(T, 9, b"!", part=2, parts=3), at)
    assert isinstance(failed, TopicFailed)
    assert failed.reason == "payload_too_large"
    assert unsubscribed == Send(1, frames.Unsubscribe((T,)))
    assert session.frame(1, frames.Snapshot(T, 9, b"!", part=3, parts=3), at) == []


@pytest.mark.parametrize(
    "wrong", [(2, 3, 10), (0, 0, 10), (3, 3, 11), (3, 4, 10)], ids=["again", "whole", "of another seq", "of more"]
)
def test_a_part_that_is_not_the_next_has_the_snapshot_begun_again(wrong: tuple[int, int, int]) -> None:
    topic = ClientTopic(T, None, takes_snapshots=True)

    def begun(seqs: tuple[tuple[int, int, int], ...]) -> list[tuple[list[Command], Next]]:
        topic.asked()
        topic.subscribed(frames.Subscribed(T, "e1", 0, 10, frames.Plan.SNAPSHOT, 10))
        return [topic.snapshot(frames.Snapshot(T, seq, b"x", part=part, parts=parts)) for part, parts, seq in seqs]

    assert begun(((1, 3, 10), (2, 3, 10), wrong, (3, 3, 10))) == [
        ([], Next.NOTHING),
        ([], Next.NOTHING),
        ([], Next.ASK),
        ([], Next.NOTHING),
    ]
    *_, (commands, then) = begun(((1, 3, 10), (2, 3, 10), (3, 3, 10)))
    assert (commands, then) == ([Apply(T, Cursor("e1", 10), b"xxx", 1, snapshot=True)], Next.NOTHING)
