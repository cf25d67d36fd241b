"""The figures of rolls are what they say."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.deploy.cluster.figures import (
    WIDEST,
    Append,
    Figures,
    Span,
    histogram,
    per_second,
    percentile,
    quantiles,
)

MOMENTS = st.lists(st.floats(0, 1000))


def test_a_percentile_is_a_value_that_the_share_stays_within() -> None:
    values = list(range(1, 101))
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1)) == (51, 100, 100)
    assert percentile([7], 0.01) == 7
    assert math.isnan(percentile([], 0.5))


@given(MOMENTS.filter(bool), st.floats(0, 0.99))
def test_no_smaller_share_of_the_values_is_within_a_percentile(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_moments_are_counted_by_the_second() -> None:
    assert per_second([10.0, 12.9, 10.99, 11.0], 10.0) == {0: 2, 1: 1, 2: 1}
    assert per_second([], 10.0) == {}


@given(MOMENTS)
def test_every_moment_is_counted_once(moments: list[float]) -> None:
    assert sum(per_second(moments, 0.0).values()) == len(moments)


def test_bars_are_as_long_as_counts_until_one_is_too_long() -> None:
    assert list(histogram({0: 2, 3: 1})) == ["     0 s  ## 2", "     3 s  # 1"]
    bars = [line.count("#") for line in histogram({0: 10 * WIDEST, 1: 5 * WIDEST, 2: 1})]
    assert bars == [WIDEST, WIDEST // 2, 1]


def test_appends_are_told_apart_by_when_they_were_written() -> None:
    figures = Figures(
        rolls=[Span(10, 20)],
        breaks=[Span(11, 11.5), Span(12, 12.1), Span(25, 26)],
        appends=[Append(5, 5.002), Append(10.5, 10.520), Append(19.999, 21), Append(21, 21.004)],
    )
    assert list(figures.lines()) == [
        "a roll: p50 10000.0 ms, p99 10000.0 ms, of 1",
        "an append between rolls: p50 4.0 ms, p99 4.0 ms, of 2",
        "an append during rolls: p50 1001.0 ms, p99 1001.0 ms, of 2",
        "a follower without a connection: p50 500.0 ms, p99 1000.0 ms, of 3",
        "reconnections in roll 1, by the second:",
        "     1 s  # 1",
        "     2 s  # 1",
    ]
    assert quantiles("nothing", []) == "nothing: p50 nan ms, p99 nan ms, of 0"
