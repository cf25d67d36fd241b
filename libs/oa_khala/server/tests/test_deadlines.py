"""What ends a connection when, whatever came before."""

from hypothesis import given
from hypothesis import strategies as st

from oa_khala.server.deadlines import Deadlines
from oa_khala.server.limits import SessionLimits

LIMITS = SessionLimits()
NOW = 1_800_000_000_000


def test_of_two_that_are_over_the_first_one_is_said() -> None:
    deadlines = Deadlines(LIMITS, NOW)
    end = deadlines.end(NOW + LIMITS.idle_timeout_ms)
    assert end is not None
    assert end.reason == "hello_timeout"
    deadlines.opened()
    end = deadlines.end(NOW + LIMITS.idle_timeout_ms)
    assert end is not None
    assert end.reason == "idle_timeout"


def test_a_client_that_has_caught_up_is_not_looked_at_again() -> None:
    deadlines = Deadlines(LIMITS, NOW)
    deadlines.opened()
    deadlines.granted(NOW + LIMITS.slow_consumer_ms - 1)  # ends before a client that takes nothing would
    deadlines.blocked(True, NOW)
    assert deadlines.wake_at_ms < NOW + LIMITS.slow_consumer_ms - 1
    deadlines.blocked(False, NOW)
    assert deadlines.wake_at_ms == NOW + LIMITS.slow_consumer_ms - 1


def test_a_drain_is_announced_once() -> None:
    deadlines = Deadlines(LIMITS, NOW)
    assert deadlines.drain(2_000, NOW)
    assert not deadlines.drain(1, NOW)
    assert deadlines.end(NOW + 1_999) is None
    assert deadlines.end(NOW + 2_000) is not None


def test_who_takes_a_byte_in_time_is_never_too_slow_nor_silent_and_who_takes_none_is() -> None:
    deadlines, now = Deadlines(LIMITS, NOW), NOW
    deadlines.opened()
    deadlines.taken(5_000, NOW - 1)
    deadlines.blocked(True, NOW)
    deadlines.taken(5_000, NOW)
    for taken in range(5_001, 5_100):
        now += LIMITS.slow_consumer_ms - 1
        deadlines.taken(taken, now)
        assert deadlines.end(now) is None
    stopped = now
    while (end := deadlines.end(now)) is None:
        deadlines.taken(5_099, now)
        now = deadlines.wake_at_ms
    assert end.reason == "slow_consumer"
    assert now == stopped + LIMITS.slow_consumer_ms


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["heard", "opened", "granted", "blocked", "free", "taken", "drain"]), st.integers(0, 9_999)
        )
    )
)
def test_nothing_is_due_before_the_time_to_wake_and_something_is_due_then(script: list[tuple[str, int]]) -> None:
    deadlines, now = Deadlines(LIMITS, NOW), NOW
    for what, ms in script:
        now += ms
        match what:
            case "heard":
                deadlines.heard(now)
            case "opened":
                deadlines.opened()
            case "granted":
                deadlines.granted(now + ms)
            case "drain":
                deadlines.drain(ms, now)
            case "taken":
                deadlines.taken(ms, now)
            case _:
                deadlines.blocked(what == "blocked", now)
        wake = deadlines.wake_at_ms
        assert deadlines.end(wake - 1) is None
        before = deadlines.wake_at_ms
        deadlines.taken(0, wake)  # as due as the rest
        assert deadlines.end(wake) is not None or deadlines.wake_at_ms > before
