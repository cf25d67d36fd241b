"""Times and durations as they are typed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from apps.cli.times import DURATION, MOMENT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", timedelta()),
        ("500ms", timedelta(milliseconds=500)),
        ("10s", timedelta(seconds=10)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
    ],
)
def test_a_duration(text: str, expected: timedelta) -> None:
    assert DURATION.convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "1.5h", "5M", "٣m", "5m30s", "9999999999s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="10s, 5m, 2h"):
        DURATION.convert(text, None, None)


def test_a_time() -> None:
    noon = datetime(2026, 12, 1, 12, tzinfo=UTC)
    assert MOMENT.convert("2026-12-01T12:00:00Z", None, None) == noon
    assert MOMENT.convert("2026-12-01T12:00", None, None) == noon
    assert MOMENT.convert("2026-12-01T13:00+01:00", None, None) == noon
    assert MOMENT.convert("2026-12-01", None, None) == noon.replace(hour=0)
    before = datetime.now(UTC)
    assert before + timedelta(minutes=10) <= MOMENT.convert("+10m", None, None)


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01T12:00:00Z", "12:00", "+999999999d", "0001-01-01T00:00+14:00"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"in UTC without an offset|less than"):
        MOMENT.convert(text, None, None)


def test_a_wait_that_is_none_says_how_to_write_one() -> None:
    with pytest.raises(click.BadParameter, match="10s, 5m, 2h"):
        MOMENT.convert("+soon", None, None)
