"""A bucket gives its burst, then its rate, and says exactly how long to wait."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.clock import MS_NS, SECOND_NS
from oa_base.rate import Rate, TokenBucket, TokenBuckets, available, take

NOW = 1_767_225_600 * SECOND_NS
RATES = st.builds(Rate, st.integers(1, 20), st.integers(1, 100 * SECOND_NS))


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket = TokenBucket(Rate.per_second(2, burst=3), 0)
    assert [bucket.take(0).wait_ms for _ in range(3)] == [0, 0, 0]
    wait_ms = bucket.take(0).wait_ms
    assert wait_ms == 500
    assert bucket.take(wait_ms * MS_NS).wait_ms == 0
    assert bucket.take(wait_ms * MS_NS).wait_ms > 0
    later_ns = 1_000 * SECOND_NS
    assert [bucket.take(later_ns).wait_ms for _ in range(4)][:3] == [0, 0, 0]
    assert bucket.take(later_ns).wait_ms > 0


@given(RATES, st.lists(st.tuples(st.integers(0, 200 * SECOND_NS), st.integers(1, 5)), max_size=60))
def test_never_more_than_burst_and_one_a_period(rate: Rate, asked: list[tuple[int, int]]) -> None:
    now_ns, full_at_ns, taken_at = NOW, 0, []
    for pause_ns, count in asked:
        now_ns += pause_ns
        can = available(rate, full_at_ns, now_ns)
        taken = take(rate, full_at_ns, now_ns, count)
        assert (taken.wait_ns == 0) == (count <= can)
        full_at_ns = taken.full_at_ns
        if taken.wait_ns == 0:
            taken_at += [now_ns] * count
        elif count <= rate.burst:
            assert take(rate, full_at_ns, now_ns + taken.wait_ns, count).wait_ns == 0, "waiting that long is enough"
            assert take(rate, full_at_ns, now_ns + taken.wait_ns - 1, count).wait_ns > 0, "and less is not"
    for first in range(len(taken_at)):
        for last in range(first, len(taken_at)):
            span_ns = taken_at[last] - taken_at[first]
            assert last - first + 1 <= rate.burst + span_ns // rate.period_ns


@given(st.lists(st.floats(min_value=0, max_value=0.5), min_size=1, max_size=200))
def test_in_no_second_go_more_than_rate_and_burst(gaps_s: list[float]) -> None:
    bucket = TokenBucket(Rate.per_second(90, burst=10), 0)
    now_s, sent = 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        now_ns = int(now_s * SECOND_NS)
        can = bucket.available(now_ns)
        assert bucket.take(now_ns, can).wait_ns == 0
        sent += [now_ns] * can
    for start_ns in sent:
        assert sum(start_ns <= at_ns < start_ns + SECOND_NS for at_ns in sent) <= 100


def test_a_bucket_says_how_long_to_wait_and_takes_nothing_by_that() -> None:
    start_ns = 5 * SECOND_NS
    bucket = TokenBucket(Rate.per_second(10, burst=2), start_ns)
    assert (bucket.available(start_ns), bucket.wait_ns(start_ns)) == (2, 0)
    bucket.take(start_ns, 2)
    assert [bucket.wait_ns(start_ns) for _ in range(3)] == [SECOND_NS // 10] * 3
    assert bucket.available(start_ns + SECOND_NS // 10) == 1


@given(RATES, st.integers(0, 10_000 * SECOND_NS))
def test_a_clock_that_was_set_back_empties_the_bucket_and_no_more(rate: Rate, back_ns: int) -> None:
    full_at_ns = take(rate, NOW, NOW, rate.burst).full_at_ns
    assert take(rate, full_at_ns, NOW - back_ns).wait_ns == rate.period_ns


@given(RATES, st.integers(0, 30))
def test_what_is_refused_costs_nothing(rate: Rate, over: int) -> None:
    refused = take(rate, NOW, NOW, rate.burst + 1 + over)
    assert refused.wait_ns == (1 + over) * rate.period_ns
    assert available(rate, refused.full_at_ns, NOW) == rate.burst


def test_waits_are_rounded_up_to_milliseconds() -> None:
    assert take(Rate(1, 1_000_001), NOW + 1_000_001, NOW).wait_ms == 2


@pytest.mark.parametrize("make", [lambda: Rate.per_second(0, 1), lambda: Rate(0, 1), lambda: Rate(1, 0)])
def test_a_rate_of_nothing_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="more than nothing"):
        make()  # type: ignore[operator]


def test_a_rate_in_either_form() -> None:
    assert Rate.per_second(2.5, burst=3) == Rate(3, 400 * MS_NS)
    assert Rate.every(timedelta(minutes=6), burst=10) == Rate(10, 360 * SECOND_NS)


def test_of_many_buckets_the_one_that_was_not_asked_for_is_forgotten() -> None:
    rate, buckets = Rate(1, SECOND_NS), TokenBuckets[str](max_keys=2)
    assert [buckets.take(rate, key, NOW).wait_ns for key in ("ada", "bob", "ada")] == [0, 0, SECOND_NS]
    assert buckets.take(rate, "eve", NOW).wait_ns == 0
    assert len(buckets) == 2
    assert [buckets.take(rate, key, NOW).wait_ns for key in ("ada", "bob")] == [SECOND_NS, 0]
