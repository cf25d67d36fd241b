"""Waits double up to their bound, and jitter takes a share of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.backoff import RECONNECT, Backoff

JITTER = st.floats(0, 1, exclude_max=True)


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(first_ms=100, max_ms=1_000)
    assert [backoff.ceiling_ms(attempt) for attempt in range(6)] == [100, 200, 400, 800, 1_000, 1_000]


@pytest.mark.parametrize(("first_ms", "max_ms", "ceiling_ms"), [(0, 10, 0), (10, 0, 0), (10, 5, 5), (10, 10, 10)])
def test_the_longest_wait_bounds_the_first_too(first_ms: int, max_ms: int, ceiling_ms: int) -> None:
    backoff = Backoff(first_ms, max_ms)
    assert {backoff.ceiling_ms(attempt) for attempt in (0, 1, 50)} == {ceiling_ms}


def test_jitter_takes_its_share_of_the_ceiling() -> None:
    backoff = Backoff(first_ms=100, max_ms=1_000)
    assert [backoff.wait_ms(1, jitter) for jitter in (0.0, 0.5, 1.0)] == [0, 100, 200]


@given(st.integers(0, 10_000), JITTER)
def test_every_wait_is_bounded(attempt: int, jitter: float) -> None:
    assert 0 <= RECONNECT.wait_ms(attempt, jitter) < RECONNECT.max_ms


@given(st.integers(0, 10_000), st.integers(0, 1_000_000), st.integers(0, 1_000_000), JITTER)
def test_no_wait_is_shorter_after_more_attempts(attempt: int, first_ms: int, max_ms: int, jitter: float) -> None:
    backoff = Backoff(first_ms, max_ms)
    assert backoff.wait_ms(attempt, jitter) <= backoff.wait_ms(attempt + 1, jitter)
