"""The client session, command by command: connections that come and go."""

import pytest

from oa_khala import frames
from oa_khala.client.commands import ClientLimits, Connect, Disconnect, Instant, Send, SessionFailed
from oa_khala.client.states import State
from oa_khala.client.tests.driver import Driver, T
from oa_khala.client.topics import Counts


def test_what_an_earlier_connection_still_says_is_dropped() -> None:
    driver = Driver(T).open(T).following()
    old = driver.session.generation
    driver.events(1)
    driver.do("disconnected", old)
    assert [type(command) for command in driver.out] == [Connect]
    assert driver.do("frame", old, frames.Event(T, 2, b"")) == []
    assert driver.do("disconnected", old) == []
    assert driver.do("connected", old) == []
    assert driver.session.generation > old


def test_backoff_doubles_with_full_jitter_and_starts_afresh_after_a_delivery() -> None:
    driver = Driver(T).open(T)
    delays = []
    for _ in range(7):
        delays.append(driver.cut())
        driver.now_ms += delays[-1]
    assert delays == [125, 250, 500, 1000, 2000, 4000, 4000]
    driver.do("connected", driver.session.generation)
    driver.welcome()
    driver.following().events(1)
    assert driver.cut() == 125


def test_a_welcome_that_nothing_follows_does_not_end_the_backoff() -> None:
    driver = Driver(T).open(T)
    delays = []
    for _ in range(4):
        delays.append(driver.cut())
        driver.now_ms += delays[-1]
        driver.do("connected", driver.session.generation)
        driver.welcome()
    assert delays == [125, 250, 500, 1000]


def test_a_draining_gateways_hint_is_honoured() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.Draining(3_000))
    driver.now_ms += 1_000
    assert driver.cut() == 2_000


def test_retry_after_in_a_closing_error_is_honoured() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.ErrorFrame("", "rate_limited", "slow down", retry_after_ms=5_000))
    assert driver.cut() == 5_000


@pytest.mark.parametrize("reason", ["protocol_violation", "origin_not_allowed", "unsupported_protocol_version"])
def test_a_reason_that_trying_again_cannot_help_stops_the_session(reason: str) -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.ErrorFrame("", reason, "no"))
    driver.do("disconnected", driver.session.generation)
    assert driver.only(SessionFailed)[0].reason == reason
    assert driver.session.state is State.STOPPED
    assert driver.session.wake_at_ms is None


def test_a_refused_handshake_counts_like_an_error_frame() -> None:
    driver = Driver(T)
    driver.do("start")
    driver.token(T)
    out = driver.session.disconnected(1, Instant(0, 0.5), "overloaded", "full", 9_000)
    assert out == [Connect(driver.session.generation, 9_000)]


def test_silence_is_death_and_pings_keep_the_gateway_awake() -> None:
    driver = Driver(T).open(T)
    driver.now_ms = 20_000
    assert driver.do("timer") == [Send(1, frames.Ping(1))]
    driver.frame(frames.Heartbeat((), 0, 1))
    driver.now_ms += 37_500
    driver.do("timer")
    assert driver.out[-2:] == [Disconnect(1), Connect(driver.session.generation, 125)]


def test_a_connection_that_neither_opens_nor_fails_is_given_up() -> None:
    driver = Driver(T)
    driver.do("start")
    driver.token(T)
    driver.now_ms = ClientLimits().connect_timeout_ms
    assert driver.do("timer") == [Disconnect(1), Connect(driver.session.generation, 125)]
    driver.do("connected", driver.session.generation)
    driver.now_ms += ClientLimits().hello_timeout_ms
    assert isinstance(driver.do("timer")[0], Disconnect)


def test_sleep_drops_the_connection_and_waking_connects_at_once() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1)
    assert driver.do("suspended") == [Disconnect(1)]
    assert driver.session.wake_at_ms is None
    assert driver.do("resumed") == [Connect(driver.session.generation, 0)]


@pytest.mark.parametrize("retry_after_ms", [0, 60_000], ids=["an outage", "the gateway wants a pause"])
def test_waking_waits_for_the_gateway_and_not_for_what_failed_before_the_sleep(retry_after_ms: int) -> None:
    driver = Driver(T).open(T)
    for _ in range(6):
        driver.session.disconnected(driver.session.generation, Instant(0, 0.5), "", "gone", retry_after_ms)
    driver.do("suspended")
    assert driver.do("resumed") == [Connect(driver.session.generation, retry_after_ms)]


def test_unknown_frames_are_counted_and_a_stopped_session_is_deaf() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.UnknownFrame(99))
    assert driver.session.counts == Counts(unknown=1)
    assert driver.do("stop") == [Disconnect(1)]
    for name, arguments in [("connected", (2,)), ("timer", ()), ("resumed", ()), ("disconnected", (2,))]:
        assert driver.do(name, *arguments) == []
    assert driver.token(T) == []
