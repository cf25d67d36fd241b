"""The client session, command by command: tokens, and what they grant."""

import pytest

from oa_khala import frames
from oa_khala.client.commands import (
    ClientLimits,
    Connect,
    Instant,
    NeedToken,
    SessionFailed,
    SyncToken,
    TopicFailed,
)
from oa_khala.client.states import State
from oa_khala.client.tests.driver import TTL_MS, Driver, T, U


def test_an_expired_session_asks_for_a_new_token_before_it_connects() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.ErrorFrame("", "reauth_required", "the token has expired"))
    assert driver.do("disconnected", driver.session.generation) == [NeedToken(frozenset({T}))]
    assert driver.session.state is State.NO_TOKEN
    assert driver.token(T, text="second") == [Connect(driver.session.generation, 125)]
    driver.do("connected", driver.session.generation)
    assert driver.sent() == [frames.Hello("second", "dev_1", "test/1")]


REVOKED = frames.ErrorFrame("", "token_revoked", "the session was ended")


def _revoked(driver: Driver) -> None:
    """The gateway says that the token was revoked, and closes."""
    driver.frame(REVOKED)
    driver.do("disconnected", driver.session.generation)


def test_a_revoked_token_is_replaced_once_and_the_topics_go_on() -> None:
    driver = Driver(T).open(T).following()
    _revoked(driver)
    assert driver.only(NeedToken) == [NeedToken(frozenset({T}))]
    driver.token(T, text="second")
    driver.do("connected", driver.session.generation)
    assert driver.sent() == [frames.Hello("second", "dev_1", "test/1")]
    driver.welcome()
    assert driver.session.state is State.OPEN


def test_another_revoked_token_in_a_row_ends_the_session() -> None:
    driver = Driver(T).open(T)
    _revoked(driver)
    driver.token(T, text="second")
    driver.do("connected", driver.session.generation)
    _revoked(driver)
    assert driver.only(SessionFailed)[0].reason == "token_revoked"
    assert (driver.session.state, driver.session.wake_at_ms) == (State.STOPPED, None)


def test_a_token_that_was_taken_starts_the_count_of_revoked_ones_anew() -> None:
    driver = Driver(T).open(T)
    for number in range(3):
        _revoked(driver)
        driver.token(T, text=f"token {number}")
        driver.do("connected", driver.session.generation)
        driver.welcome()
    assert driver.session.state is State.OPEN


def test_a_session_that_control_has_ended_gets_no_token_and_stops() -> None:
    driver = Driver(T).open(T)
    _revoked(driver)
    assert driver.do("no_token", "token_revoked", "sign in")[-1] == SessionFailed("token_revoked", "sign in")


def _not_taken(driver: Driver, number: int) -> None:
    """Control gives one more token, and the gateway does not take it."""
    driver.token(T, text=f"token {number}")
    driver.do("connected", driver.session.generation)
    driver.frame(frames.ErrorFrame("", "invalid_token", "the signature is wrong"))
    driver.do("disconnected", driver.session.generation)


def test_so_many_tokens_in_a_row_that_no_gateway_takes_end_the_session() -> None:
    limit = ClientLimits().max_refused_tokens
    driver = Driver(T)
    driver.do("start")
    for number in range(1, limit):
        _not_taken(driver, number)
        assert driver.out == [NeedToken(frozenset({T}))]
    _not_taken(driver, limit)
    (failed,) = driver.only(SessionFailed)
    assert (failed.reason, str(limit) in failed.message) == ("invalid_token", True)
    assert (driver.session.state, driver.session.wake_at_ms) == (State.STOPPED, None)


def test_a_token_that_was_taken_starts_the_count_of_refused_ones_anew() -> None:
    driver = Driver(T)
    driver.do("start")
    for number in range(ClientLimits().max_refused_tokens):
        _not_taken(driver, number)
        driver.token(T, text=f"good {number}")
        driver.do("connected", driver.session.generation)
        driver.welcome()
        driver.frame(frames.ErrorFrame("", "token_expired", "get another token"))
        driver.do("disconnected", driver.session.generation)
    assert driver.out == [NeedToken(frozenset({T}))]


def test_an_outage_is_tried_again_however_long_it_lasts() -> None:
    driver = Driver(T)
    driver.do("start")
    driver.token(T)
    for number in range(4 * ClientLimits().max_refused_tokens):
        reason = ("unavailable", "overloaded", "clock_skew", "")[number % 4]
        at = Instant(0, 0.5)
        out = driver.session.disconnected(driver.session.generation, at, reason, "away")
        assert [type(command) for command in out] == [Connect]


def test_the_token_is_refreshed_in_time_on_the_open_connection() -> None:
    driver = Driver(T).open(T)
    driver.now_ms = int(TTL_MS * 0.8)
    driver.frame(frames.Heartbeat((), 0))
    assert driver.do("timer")[-1] == NeedToken(frozenset({T}))
    assert NeedToken(frozenset({T})) not in driver.do("timer"), "asked for once"
    driver.token(T, text="second")
    assert driver.sent() == [frames.RefreshToken("second")]


@pytest.mark.parametrize("expires_in_ms", [-600_000, 0, 1_000])
def test_a_wrong_clock_does_not_make_a_new_token_useless(expires_in_ms: int) -> None:
    driver = Driver(T)
    driver.do("start")
    assert driver.do("token", SyncToken("token", frozenset({T}), expires_in_ms)) == [Connect(1, 0)]
    driver.do("connected", 1)
    driver.welcome()
    driver.now_ms = int(TTL_MS * 0.8) - 1
    driver.frame(frames.Heartbeat((), 0))
    assert driver.only(NeedToken) == []
    driver.now_ms += 1
    driver.do("timer")
    assert driver.only(NeedToken) != [], "refreshed by the gateway's clock"


def test_a_token_that_comes_while_hello_is_out_is_shown_after_welcome() -> None:
    driver = Driver(T).open(T)
    driver.now_ms = int(TTL_MS * 0.8)
    driver.frame(frames.Heartbeat((), 0))
    driver.do("timer")
    driver.cut()
    driver.do("connected", driver.session.generation)
    assert driver.token(T, text="second") == []
    driver.welcome()
    assert driver.sent() == [frames.RefreshToken("second"), frames.Subscribe(((T, None),))]


def test_losing_control_leaves_the_connection_open_and_asks_again_with_backoff() -> None:
    driver = Driver(T).open(T).following()
    driver.now_ms = int(TTL_MS * 0.8)
    driver.frame(frames.Heartbeat((), 0))
    driver.do("timer")
    assert driver.do("no_token", "unavailable", "control is away") == []
    driver.now_ms += 125
    assert driver.do("timer") == [NeedToken(frozenset({T}))]
    assert driver.events(1) == [1]
    assert driver.do("no_token", "reauth_required", "sign in")[-1] == SessionFailed("reauth_required", "sign in")


def test_control_is_not_asked_again_before_it_wants_to_be() -> None:
    driver = Driver(T)
    driver.do("start")
    driver.session.no_token("rate_limited", "slower", Instant(0, 0.5), 30_000)
    driver.now_ms = 29_999
    assert driver.do("timer") == []
    driver.now_ms = 30_000
    assert driver.do("timer") == [NeedToken(frozenset({T}))]


def test_a_topic_more_than_a_token_can_name_fails_alone() -> None:
    names = [f"run:run_01J9ZQ6T5W3M8K2N4P7R1S{number:04}:events" for number in range(128)]
    driver = Driver(*names).open(*names)
    (failed,) = driver.do("subscribe", U, None)
    assert isinstance(failed, TopicFailed)
    assert (failed.topic, failed.reason) == (U, "too_many_topics")
    driver.do("unsubscribe", names[0])
    assert driver.do("subscribe", U, None) == [NeedToken(frozenset({U, *names[1:]}))]


def test_a_topic_that_the_token_lacks_gets_a_token_first() -> None:
    driver = Driver(T).open(T).following()
    assert driver.do("subscribe", U, None) == [NeedToken(frozenset({T, U}))]
    driver.token(T, U, text="both")
    assert driver.sent() == [frames.RefreshToken("both"), frames.Subscribe(((U, None),))]


def test_a_token_ends_no_topic_that_was_followed_again_while_it_was_asked_for() -> None:
    driver = Driver(T, U).open(T, U).following()
    driver.do("unsubscribe", U)
    driver.now_ms = int(TTL_MS * 0.8)
    driver.frame(frames.Heartbeat((), 0))
    assert driver.do("timer")[-1] == NeedToken(frozenset({T}))
    driver.do("subscribe", U, None)
    assert driver.sent() == [frames.Subscribe(((U, None),))], "the token that the gateway knows opens it"
    assert driver.token(T, text="second") == [NeedToken(frozenset({T, U}))], "the gateway would end it"
    driver.token(T, U, text="third")
    assert driver.sent() == [frames.RefreshToken("third")]


def test_a_topic_that_control_does_not_grant_fails_and_the_others_go_on() -> None:
    driver = Driver(T, U)
    driver.do("start")
    driver.token(T, refused=((U, "owner_mismatch"),))
    assert driver.only(TopicFailed)[0].reason == "owner_mismatch"
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((T, None),))]
    assert driver.only(NeedToken) == []


ORG_RUNS = "run:org_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
T2 = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6Y:events"


def test_the_name_of_all_topics_of_an_owner_is_no_topic_as_the_gateway_says() -> None:
    driver = Driver(ORG_RUNS)
    driver.do("start")
    driver.token(ORG_RUNS)
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((ORG_RUNS, None),))]
    assert driver.only(NeedToken) == [], "another token would be the same"
    driver.frame(frames.ErrorFrame(ORG_RUNS, "invalid_topic", "there is no topic of this form"))
    assert [(one.topic, one.reason) for one in driver.only(TopicFailed)] == [(ORG_RUNS, "invalid_topic")]


def test_a_name_that_control_does_not_know_fails_as_such() -> None:
    driver = Driver("run:x", U)
    driver.do("start")
    driver.token(U, refused=(("run:x", "invalid_topic"),))
    assert driver.only(TopicFailed) == [TopicFailed("run:x", "invalid_topic", "there is no topic of this form")]


def test_all_runs_of_an_owner_are_asked_for_once_and_a_run_that_comes_later_needs_no_token() -> None:
    driver = Driver(T, U, grants=(ORG_RUNS,))
    assert driver.do("start") == [NeedToken(frozenset({ORG_RUNS, U}))]
    driver.token(ORG_RUNS, U)
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((T, None), (U, None)))]
    driver.do("subscribe", T2, None)
    assert driver.only(NeedToken) == []
    assert driver.sent() == [frames.Subscribe(((T2, None),))]


def test_with_an_owner_that_is_not_granted_topics_are_asked_for_by_name() -> None:
    driver = Driver(T, U, grants=(ORG_RUNS,))
    driver.do("start")
    driver.token(U, refused=((ORG_RUNS, "surface_policy_denied"),))
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.only(NeedToken) == [NeedToken(frozenset({T, U}))]
    driver.token(T, U, text="second")
    assert frames.Subscribe(((T, None),)) in driver.sent()
    assert driver.only(NeedToken) == []


def test_topics_of_an_owner_that_is_no_longer_granted_go_on_if_they_are_granted_by_name() -> None:
    driver = Driver(T, U, grants=(ORG_RUNS,)).open(ORG_RUNS, U).following()
    driver.now_ms = int(TTL_MS * 0.8)
    driver.frame(frames.Heartbeat((), 0))
    assert driver.do("timer")[-1] == NeedToken(frozenset({ORG_RUNS, U}))
    denied = (ORG_RUNS, "surface_policy_denied")
    assert driver.token(U, text="second", refused=(denied,)) == [NeedToken(frozenset({T, U}))]
    driver.token(U, text="third", refused=((T, "owner_mismatch"),))
    assert [(one.topic, one.reason) for one in driver.only(TopicFailed)] == [(T, "owner_mismatch")]
    assert driver.sent() == [frames.RefreshToken("third")]


def test_when_nothing_that_was_asked_for_is_granted_the_topics_of_the_owner_are_asked_for_by_name() -> None:
    driver = Driver(T, grants=(ORG_RUNS,))
    assert driver.do("start") == [NeedToken(frozenset({ORG_RUNS}))]
    assert driver.do("no_token", "surface_policy_denied", "name the topics") == [NeedToken(frozenset({T}))]
    assert driver.do("no_token", "surface_policy_denied", "no")[-1] == SessionFailed("surface_policy_denied", "no")


def test_topics_that_a_grant_opens_do_not_count_against_what_a_token_can_name() -> None:
    names = [f"run:run_01J9ZQ6T5W3M8K2N4P7R1S{number:04}:events" for number in range(200)]
    driver = Driver(*names, grants=(ORG_RUNS,))
    assert driver.do("start") == [NeedToken(frozenset({ORG_RUNS}))]
    assert driver.only(TopicFailed) == []
