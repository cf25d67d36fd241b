"""Dates of HTTP, and what is none."""

from __future__ import annotations

import pytest

from oa_wire.http_dates import seconds_of


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("", None),
        ("tomorrow", None),
        ("Sun, 06 Nov 19940 08:49:37 GMT", None),
    ],
)
def test_a_date_is_read_in_seconds(date: str, seconds: float | None) -> None:
    assert seconds_of(date) == seconds
