"""Moments keep what they say in each of their forms."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from oa_base.clock import SECOND_NS, duration_ns, ns_of, time_of

MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(MOMENTS)
def test_a_moment_is_the_same_in_both_forms(moment: datetime) -> None:
    assert time_of(ns_of(moment)) == moment


@given(st.integers(0, 2**62))
def test_what_databases_can_not_count_is_cut_off(ns: int) -> None:
    assert ns_of(time_of(ns)) == ns - ns % 1_000


def test_moments_count_from_1970_in_any_time_zone() -> None:
    assert ns_of(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert ns_of(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0
    assert ns_of(datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)) == SECOND_NS + 1_000


def test_a_duration_in_nanoseconds_is_exact() -> None:
    assert duration_ns(timedelta(days=36_500, microseconds=1)) == 36_500 * 86_400 * SECOND_NS + 1_000
