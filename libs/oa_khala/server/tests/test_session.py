"""The server session, command by command."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.frames import Cursor, Plan, TopicState
from oa_khala.grants import AllOf
from oa_khala.server.admission import Grant
from oa_khala.server.commands import (
    CloseConnection,
    Command,
    ConfirmCursor,
    DeliveryBroken,
    JoinFeed,
    LeaveFeed,
    SendFrame,
    Serve,
    StartHeartbeats,
    Subscription,
    VerifyToken,
)
from oa_khala.server.limits import SessionLimits
from oa_khala.server.session import ServerSession
from oa_khala.server.states import State
from oa_khala.tests.strategies import client_frames
from oa_khala.topics import RUN_EVENTS

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
U = "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"
W = "worker:wrk_01J9ZQ6T5W3M8K2N4P7R1S0V6X:lifecycle"
NOW = 1_800_000_000_000
TTL_MS = 300_000
GRANT = Grant("usr_a", "org_a", frozenset({"runs.read"}), frozenset({T, U, W}), "ses_1", "dev_1", "jti", NOW + TTL_MS)
HELLO = frames.Hello("token", "dev_1", "oa-cli/0.1.0")
LIMITS = SessionLimits()


def made(limits: SessionLimits = LIMITS) -> ServerSession:
    return ServerSession("con_1", limits, lambda _topic: (9, False), NOW)


def opened(limits: SessionLimits = LIMITS) -> ServerSession:
    session = made(limits)
    assert session.frame(HELLO, NOW) == [VerifyToken("token")]
    session.token_accepted(GRANT, NOW)
    assert session.state is State.OPEN
    return session


def subscribed(cursor: Cursor | None = None, state: TopicState | None = None) -> ServerSession:
    session = opened()
    session.frame(frames.Subscribe(((T, cursor),)), NOW)
    ready(session, state or TopicState("e", 0, 3))
    return session


def of(session: ServerSession, topic: str = T) -> Subscription:
    return session.subscriptions.by_topic[topic]


def ready(session: ServerSession, state: TopicState, user: str = "usr_a", org: str = "") -> list[Command]:
    """The feed of `T` stands."""
    return session.subscriptions.ready(of(session), state, user, org)


def joined(commands: list[Command]) -> list[str]:
    return [command.subscription.name for command in commands if isinstance(command, JoinFeed)]


def left(commands: list[Command]) -> list[str]:
    return [command.subscription.name for command in commands if isinstance(command, LeaveFeed)]


def errors(commands: list[Command]) -> list[tuple[str, str]]:
    sent = (command.frame for command in commands if isinstance(command, SendFrame))
    return [(frame.topic, frame.reason) for frame in sent if isinstance(frame, frames.ErrorFrame)]


def close_code(commands: list[Command]) -> int:
    assert isinstance(commands[-1], CloseConnection), commands
    return commands[-1].code


def test_hello_is_welcomed() -> None:
    session = made()
    session.frame(HELLO, NOW)
    assert session.token_accepted(GRANT, NOW) == [
        SendFrame(frames.Welcome("con_1", 25_000, 60_000, 128, 65_536, NOW, NOW + TTL_MS)),
        StartHeartbeats(),
    ]


@pytest.mark.parametrize(
    "frame", [frames.Subscribe(((T, None),)), frames.Unsubscribe((T,)), frames.RefreshToken("t"), frames.Ping(1)]
)
def test_anything_before_hello_is_a_violation(frame: frames.ClientFrame) -> None:
    out = made().frame(frame, NOW)
    assert errors(out) == [("", "protocol_violation")]
    assert close_code(out) == 4400


def test_hello_twice_is_a_violation() -> None:
    assert errors(opened().frame(HELLO, NOW)) == [("", "protocol_violation")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"client_build_id": "no slash"}, "invalid_client_build"),
        ({"protocol_version": 2}, "unsupported_protocol_version"),
        ({"protocol_version": 2, "client_build_id": "x"}, "invalid_client_build"),
        ({"schema_version": 0}, "unsupported_schema_version"),
    ],
)
def test_an_incompatible_client_is_told_why(change: dict[str, object], reason: str) -> None:
    out = made().frame(replace(HELLO, **change), NOW)  # type: ignore[arg-type]
    assert errors(out) == [("", reason)]


def test_a_refused_token_closes_with_its_reason() -> None:
    session = made()
    session.frame(HELLO, NOW)
    out = session.refused(Refusal("token_expired", "old"))
    assert (errors(out), close_code(out)) == ([("", "token_expired")], 4401)


def test_a_token_of_another_device_is_refused() -> None:
    session = made()
    session.frame(replace(HELLO, device_id="dev_2"), NOW)
    assert errors(session.token_accepted(GRANT, NOW)) == [("", "invalid_token")]


def test_frames_sent_right_behind_hello_wait_for_the_token_but_not_without_end() -> None:
    session = made()
    session.frame(HELLO, NOW)
    assert session.frame(frames.Subscribe(((T, None),)), NOW) == []
    assert session.token_accepted(GRANT, NOW)[2:] == [JoinFeed(of(session))]
    session = made(SessionLimits(max_pipelined_frames=2))
    session.frame(HELLO, NOW)
    session.frame(frames.Ping(1), NOW)
    session.frame(frames.Ping(2), NOW)
    assert errors(session.frame(frames.Ping(3), NOW)) == [("", "protocol_violation")]
    assert session.token_accepted(GRANT, NOW) == []


def test_a_subscription_is_served_from_its_cursor_and_told_when_it_caught_up() -> None:
    session = opened()
    out = session.frame(frames.Subscribe(((T, Cursor("e", 1)),)), NOW)
    assert out == [JoinFeed(of(session))]
    assert ready(session, TopicState("e", 0, 3)) == [
        SendFrame(frames.Subscribed(T, "e", 0, 3, Plan.REPLAY, 1)),
        Serve(of(session)),
    ]
    assert of(session).next_seq == 2
    deliver = session.subscriptions.delivered
    assert deliver(of(session), 2, 1) == []
    assert deliver(of(session), 3, 2) == [SendFrame(frames.CaughtUp(T, 3))]
    assert deliver(of(session), 5, 1) == []


def test_at_the_head_one_has_caught_up_at_once() -> None:
    session = opened()
    session.frame(frames.Subscribe(((T, Cursor("e", 3)),)), NOW)
    assert ready(session, TopicState("e", 0, 3), "", "org_a") == [
        SendFrame(frames.Subscribed(T, "e", 0, 3, Plan.LIVE, 3)),
        SendFrame(frames.CaughtUp(T, 3)),
        Serve(of(session)),
    ]
    assert of(session).next_seq == 4


@pytest.mark.parametrize(("first", "count"), [(1, 1), (3, 1), (0, 2), (2, 0)])
def test_anything_but_the_expected_seq_is_a_defect(first: int, count: int) -> None:
    session = subscribed(Cursor("e", 1))
    with pytest.raises(DeliveryBroken):
        session.subscriptions.delivered(of(session), first, count)


@pytest.mark.parametrize(
    ("cursor", "state", "reason"),
    [
        (Cursor("old", 1), TopicState("e", 0, 3), "epoch_mismatch"),
        (Cursor("e", 1), TopicState("e", 2, 3), "retention_floor_breach"),
    ],
)
def test_a_stale_cursor_says_where_the_topic_stands(cursor: Cursor, state: TopicState, reason: str) -> None:
    session = opened()
    session.frame(frames.Subscribe(((T, cursor),)), NOW)
    subscription = of(session)
    out = ready(session, state)
    assert out[0] == LeaveFeed(subscription)
    assert isinstance(out[1], SendFrame)
    assert isinstance(out[1].frame, frames.ErrorFrame)
    assert (out[1].frame.reason, out[1].frame.stale) == (reason, state)
    assert session.state is State.OPEN, "only the topic is refused"


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("nonsense", "invalid_topic"),
        ("run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6Y:events", "forbidden_topic"),
        (W, "missing_scope"),
    ],
)
def test_a_topic_that_is_not_admitted_does_not_disturb_the_others(topic: str, reason: str) -> None:
    session = opened()
    out = session.frame(frames.Subscribe(((topic, None), (T, None))), NOW)
    assert errors(out) == [(topic, reason)]
    assert joined(out) == [T]


def test_other_peoples_topics_are_refused() -> None:
    session = opened()
    session.frame(frames.Subscribe(((T, None),)), NOW)
    out = ready(session, TopicState("e", 0, 3), "usr_b", "org_b")
    assert (left(out), errors(out)) == ([T], [(T, "owner_mismatch")])


def test_an_answer_to_an_earlier_subscription_is_not_heard() -> None:
    session = opened()
    session.frame(frames.Subscribe(((T, None),)), NOW)
    earlier, state = of(session), TopicState("e", 0, 3)
    out = session.frame(frames.Subscribe(((T, Cursor("e", 2)),)), NOW)
    assert out == [LeaveFeed(earlier), JoinFeed(of(session))]
    assert session.subscriptions.ready(earlier, state, "usr_a", "") == []
    assert session.subscriptions.refused(earlier, Refusal("not_found", "no")) == []
    assert session.subscriptions.stale(earlier, "epoch_mismatch", state) == []
    with pytest.raises(DeliveryBroken):
        session.subscriptions.delivered(earlier, earlier.next_seq, 1)
    assert ready(session, state)[-1] == Serve(of(session))
    assert of(session).next_seq == 3


def test_a_new_lineage_under_a_subscription_is_a_stale_cursor() -> None:
    session = subscribed()
    out = session.subscriptions.stale(of(session), "epoch_mismatch", TopicState("e2", 0, 1))
    assert (left(out), errors(out)) == ([T], [(T, "epoch_mismatch")])
    assert session.subscriptions.by_topic == {}


def test_unsubscribe_leaves_the_feed_and_unknown_topics_are_ignored() -> None:
    session = subscribed()
    subscription = of(session)
    assert session.frame(frames.Unsubscribe((U, T)), NOW) == [LeaveFeed(subscription)]


def test_too_many_topics_are_refused_one_by_one() -> None:
    session = opened(SessionLimits(max_topics=1))
    out = session.frame(frames.Subscribe(((T, None), (U, None))), NOW)
    assert errors(out) == [(U, "too_many_topics")]


def test_a_topic_that_a_frame_names_twice_is_subscribed_as_its_first_entry_says() -> None:
    session = opened()
    out = session.frame(frames.Subscribe(((T, Cursor("e1", 1)), (T, None)), takes_snapshots=()), NOW)
    [error] = [one.frame for one in out if isinstance(one, SendFrame) and isinstance(one.frame, frames.ErrorFrame)]
    assert (error.topic, error.reason, error.field) == (T, "invalid_value", "subscribe.topics[1].topic")
    assert error.subscription_stands
    assert (joined(out), of(session).cursor) == ([T], Cursor("e1", 1))


def test_subscribing_too_fast_is_refused_with_a_time_to_wait() -> None:
    session = opened(SessionLimits(subscribe_burst=1, subscribe_per_s=1))
    out = session.frame(frames.Subscribe(((T, None), (U, None))), NOW)
    assert errors(out) == [(U, "rate_limited")]
    assert errors(session.frame(frames.Subscribe(((U, None),)), NOW + 1_100)) == []


def test_a_refused_subscribe_leaves_the_subscription_that_stands() -> None:
    session = opened(SessionLimits(subscribe_burst=2, subscribe_per_s=1, max_topics=1))
    session.frame(frames.Subscribe(((T, None),)), NOW)
    standing = of(session)
    assert joined(session.frame(frames.Subscribe(((T, Cursor("e", 1)),)), NOW)) == [T], "restarts at its cursor"
    assert not standing.live
    standing = of(session)
    out = session.frame(frames.Subscribe(((T, None), (U, None))), NOW)
    stands = [command.frame.subscription_stands for command in out if isinstance(command, SendFrame)]  # type: ignore[union-attr]
    assert (errors(out), stands, left(out)) == ([(T, "rate_limited"), (U, "rate_limited")], [True, False], [])
    assert standing.live
    assert of(session) is standing


def test_a_token_that_would_end_at_once_opens_nothing() -> None:
    session = made()
    session.frame(HELLO, NOW)
    out = session.token_accepted(replace(GRANT, expires_at_ms=NOW), NOW)
    assert (errors(out), close_code(out)) == ([("", "token_expired")], 4401)


def test_a_token_of_another_org_does_not_refresh() -> None:
    session = opened()
    session.frame(frames.RefreshToken("new"), NOW)
    assert errors(session.token_accepted(replace(GRANT, org_id="org_b"), NOW)) == [("", "invalid_token")]


def test_ping_is_answered_with_the_heads() -> None:
    session = subscribed()
    assert session.frame(frames.Ping(7), NOW + 5) == [
        SendFrame(frames.Heartbeat((frames.TopicHead(T, 9, "e"),), NOW + 5, 7)),
        StartHeartbeats(),
    ]


def test_a_refreshed_token_extends_the_connection_and_takes_away_what_it_lacks() -> None:
    session = subscribed()
    assert session.frame(frames.RefreshToken("new"), NOW) == [VerifyToken("new")]
    longer = replace(GRANT, topics=frozenset({U}), expires_at_ms=NOW + 2 * TTL_MS)
    out = session.token_accepted(longer, NOW)
    assert (left(out), errors(out)) == ([T], [(T, "forbidden_topic")])
    session.heard(NOW + TTL_MS)
    assert errors(session.timer(NOW + TTL_MS)) == [], "it lives on"


def test_a_token_of_another_session_does_not_refresh() -> None:
    session = opened()
    session.frame(frames.RefreshToken("new"), NOW)
    assert errors(session.token_accepted(replace(GRANT, session_id="ses_2"), NOW)) == [("", "invalid_token")]


def at(session: ServerSession, ms: int) -> list[Command]:
    assert session.wake_at_ms <= NOW + ms
    return session.timer(NOW + ms)


def test_each_deadline_closes_with_its_reason() -> None:
    cases = {
        "hello_timeout": (made(), LIMITS.hello_deadline_ms, 4408),
        "idle_timeout": (opened(), LIMITS.idle_timeout_ms, 4009),
    }
    slow = opened()
    slow.blocked(True, NOW)
    cases["slow_consumer"] = (slow, LIMITS.slow_consumer_ms, 4008)
    expiring = opened()
    expiring.heard(NOW + TTL_MS)
    cases["reauth_required"] = (expiring, TTL_MS, 4401)
    for reason, (session, ms, code) in cases.items():
        out = at(session, ms)
        assert (errors(out), close_code(out)) == ([("", reason)], code)
        assert session.timer(NOW + 10 * TTL_MS) == []


def test_nothing_closes_before_its_time() -> None:
    session = opened()
    session.blocked(True, NOW)
    session.blocked(False, NOW + 1)
    session.heard(NOW + 10_000)
    for ms in range(0, 70_000, 1_000):
        assert errors(session.timer(NOW + ms)) == []


def test_draining_is_announced_and_carried_out_when_due() -> None:
    session = subscribed()
    assert session.drain(2_000, NOW) == [SendFrame(frames.Draining(2_000))]
    assert session.drain(9_000, NOW) == []
    subscription = of(session)
    out = at(session, 2_000)
    assert out == [LeaveFeed(subscription), CloseConnection(1012, "draining")]


def test_closing_says_why_once() -> None:
    session = subscribed()
    out = session.refused(Refusal("malformed_message", "no frame", field="x"))
    assert [type(command) for command in out] == [LeaveFeed, SendFrame, CloseConnection]
    assert out[-1] == CloseConnection(4400, "malformed_message")
    assert session.refused(Refusal("malformed_message", "no frame")) == []
    assert session.frame(frames.Ping(1), NOW) == []


steps = st.one_of(
    client_frames,
    st.sampled_from(["accept", "refuse", "ready", "confirm", "deny", "stale", "drain", "block"]),
    st.integers(0, 20_000),
)


def run_step(session: ServerSession, step: frames.ClientFrame | str, now: int) -> list[Command]:
    state = TopicState("e", 0, 3)
    topics = session.subscriptions
    pending = [one for one in topics.by_topic.values() if one.next_seq == 0]
    served = [one for one in topics.by_topic.values() if one.next_seq > 0]
    match step:
        case "accept":
            return session.token_accepted(replace(GRANT, expires_at_ms=now + TTL_MS), now)
        case "refuse":
            return session.refused(Refusal("invalid_token", "no"))
        case "ready":
            return [command for one in pending for command in topics.ready(one, state, "usr_a", "")]
        case "confirm":
            return [command for one in pending for command in topics.cursor_confirmed(one, state)]
        case "deny":
            no = Refusal("epoch_mismatch", "no")
            return [command for one in pending for command in topics.cursor_refused(one, no, state, OTHER)]
        case "stale":
            return [command for one in served for command in topics.stale(one, "epoch_mismatch", state)]
        case "drain":
            return session.drain(1_000, now)
        case str():
            session.blocked(True, now)
            return []
    return session.frame(step, now)


def note(command: Command, at_feeds: list[Subscription]) -> None:
    match command:
        case JoinFeed():
            assert command.subscription.name not in [one.name for one in at_feeds]
            at_feeds.append(command.subscription)
        case LeaveFeed():
            at_feeds.remove(command.subscription)
        case Serve():
            assert command.subscription in at_feeds


CHAIN, OTHER = b"c" * 32, b"o" * 32
BOUND = Cursor("e", 2, CHAIN)


def asked() -> ServerSession:
    """A session that waits for the source to confirm a cursor."""
    session = opened()
    session.frame(frames.Subscribe(((T, BOUND),)), NOW)
    state = TopicState("e", 0, 3)
    assert ready(session, state) == [ConfirmCursor(of(session), BOUND)]
    return session


def test_a_cursor_with_a_chain_is_served_once_its_source_has_confirmed_it() -> None:
    session = asked()
    assert session.frame(frames.Ping(1), NOW) == [SendFrame(frames.Heartbeat((), NOW, 1)), StartHeartbeats()]
    assert session.subscriptions.cursor_confirmed(of(session), TopicState("e", 0, 5)) == [
        SendFrame(frames.Subscribed(T, "e", 0, 5, Plan.REPLAY, 2)),
        Serve(of(session)),
    ]
    assert of(session).next_seq == 3


def test_a_cursor_of_other_content_is_stale_and_told_both() -> None:
    refusal = Refusal("epoch_mismatch", "other content")
    state = TopicState("e", 0, 3)
    session = asked()
    subscription = of(session)
    leave, send = session.subscriptions.cursor_refused(subscription, refusal, state, OTHER)
    assert leave == LeaveFeed(subscription)
    assert isinstance(send, SendFrame)
    assert isinstance(send.frame, frames.ErrorFrame)
    assert (send.frame.reason, send.frame.stale, send.frame.chain) == ("epoch_mismatch", state, OTHER)
    assert CHAIN.hex() in send.frame.message
    assert OTHER.hex() in send.frame.message


def test_a_source_that_can_not_say_now_is_asked_again_later() -> None:
    refusal = Refusal("unavailable", "away", retry_after_ms=1_000)
    session = asked()
    out = session.subscriptions.cursor_refused(of(session), refusal, TopicState("e", 0, 3), b"")
    assert errors(out) == [(T, "unavailable")]


def test_an_answer_about_an_earlier_cursor_is_not_heard() -> None:
    session = asked()
    earlier, state = of(session), TopicState("e", 0, 3)
    session.frame(frames.Subscribe(((T, BOUND),)), NOW)
    assert session.subscriptions.cursor_confirmed(earlier, state) == []
    for reason in ("epoch_mismatch", "unavailable"):
        assert session.subscriptions.cursor_refused(earlier, Refusal(reason, "no"), state, OTHER) == []


def test_what_the_numbers_say_already_needs_no_question_and_other_peoples_topics_get_none() -> None:
    session = opened()
    session.frame(frames.Subscribe(((T, BOUND),)), NOW)
    assert errors(ready(session, TopicState("e2", 0, 3))) == [(T, "epoch_mismatch")]
    session.frame(frames.Subscribe(((T, BOUND),)), NOW)
    assert errors(ready(session, TopicState("e", 0, 3), "usr_b")) == [(T, "owner_mismatch")]


def test_a_chain_for_a_topic_without_one_is_refused() -> None:
    session = opened()
    (send,) = session.frame(frames.Subscribe(((U, BOUND),)), NOW)
    assert isinstance(send, SendFrame)
    assert isinstance(send.frame, frames.ErrorFrame)
    assert (send.frame.reason, send.frame.field) == ("invalid_value", "subscribe.topics[0].cursor.chain")


@given(st.lists(steps, max_size=40))
def test_whatever_happens_every_feed_is_joined_and_left_once_and_nothing_follows_the_close(
    script: list[frames.ClientFrame | str | int],
) -> None:
    session, now = made(), NOW
    at_feeds: list[Subscription] = []
    for step in script:
        was_closed = session.state is State.CLOSED
        now += step if isinstance(step, int) else 0
        out = session.timer(now) if isinstance(step, int) else run_step(session, step, now)
        assert not (was_closed and out), "a command after the close"
        for command in out:
            note(command, at_feeds)
        assert at_feeds == list(session.subscriptions.by_topic.values())
        closes = [command for command in out if isinstance(command, CloseConnection)]
        assert len(closes) == (session.state is State.CLOSED and not was_closed)


# ------------------------------------------------------------------------------------------------- revocations

REVOKED = Refusal("token_revoked", "the session was ended")


def _at(state: State) -> ServerSession:
    """A session in `state`, with a subscription where one can be."""
    if state is State.AWAIT_HELLO:
        return made()
    if state is State.VERIFYING:
        session = made()
        session.frame(HELLO, NOW)
        return session
    session = subscribed()
    if state is State.REFRESHING:
        session.frame(frames.RefreshToken("another"), NOW)
    return session


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED], ids=str)
def test_a_revoked_token_ends_the_connection_and_its_topics_in_every_state(state: State) -> None:
    session = _at(state)
    assert session.state is state
    out = session.refused(REVOKED)
    assert left(out) == ([T] if state in (State.OPEN, State.REFRESHING) else [])
    assert errors(out) == [("", "token_revoked")]
    assert out[-1] == CloseConnection(4401, "token_revoked")
    assert session.state is State.CLOSED
    assert session.token_accepted(GRANT, NOW) == [], "what is on its way opens nothing"
    assert session.refused(REVOKED) == []


def test_nothing_is_handed_over_after_the_token_was_revoked() -> None:
    session = subscribed()
    subscription = of(session)
    session.refused(REVOKED)
    assert not subscription.live
    assert session.subscriptions.snapshot(subscription, TopicState("e", 0, 3), 3, b"x") == []
    with pytest.raises(DeliveryBroken):
        session.subscriptions.delivered(subscription, subscription.next_seq, 1)


WIDE = replace(GRANT, topics=frozenset(), all_of=frozenset({AllOf(RUN_EVENTS, "org_a")}))
STATE = TopicState("e", 0, 3)


def opened_wide() -> ServerSession:
    session = made()
    session.frame(HELLO, NOW)
    session.token_accepted(WIDE, NOW)
    assert joined(session.frame(frames.Subscribe(((T, None),)), NOW)) == [T]
    return session


def test_an_orgs_run_is_served_and_one_of_somebody_else_is_refused_like_one_that_is_not_there() -> None:
    served = opened_wide()
    assert errors(ready(served, STATE, "usr_b", "org_a")) == []
    assert of(served).next_seq == 1
    not_yours, not_there = opened_wide(), opened_wide()
    foreign = ready(not_yours, STATE, "usr_b", "org_b")
    absent = not_there.subscriptions.refused(of(not_there), Refusal("not_found", "there is no such run"))
    assert errors(foreign) == [(T, "forbidden_topic")]
    sent = [[one for one in out if isinstance(one, SendFrame)] for out in (foreign, absent)]
    assert sent[0] == sent[1], "nobody can tell them apart"


def test_a_fresh_token_of_other_owners_ends_what_it_does_not_open() -> None:
    session = opened_wide()
    ready(session, STATE, "usr_b", "org_a")
    again = replace(WIDE, jti="again")
    session.frame(frames.RefreshToken("t"), NOW)
    assert errors(session.token_accepted(again, NOW)) == []
    of_me = replace(WIDE, all_of=frozenset({AllOf(RUN_EVENTS, "usr_a")}))
    session.frame(frames.RefreshToken("t"), NOW)
    assert errors(session.token_accepted(of_me, NOW)) == [(T, "forbidden_topic")]


def test_a_fresh_token_counts_for_a_subscription_whose_owner_is_not_known_yet() -> None:
    session = opened_wide()
    session.frame(frames.RefreshToken("t"), NOW)
    of_me = replace(WIDE, all_of=frozenset({AllOf(RUN_EVENTS, "usr_a")}))
    assert errors(session.token_accepted(of_me, NOW)) == []
    assert errors(ready(session, STATE, "usr_b", "org_a")) == [(T, "forbidden_topic")]
