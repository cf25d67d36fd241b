"""Dates of HTTP, and what is none."""

from __future__ import annotations

import time

import pytest

from oa_wire.http_dates import seconds_of


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        # The forms that a recipient has to read, too, all of them in GMT (RFC 9110, section 5.6.7).
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777.0),
        ("Sun Nov  6 08:49:37 1994", 784_111_777.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 784_111_777.0),
        ("", None),
        ("tomorrow", None),
        ("Sun, 06 Nov 19940 08:49:37 GMT", None),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_date_is_read_in_seconds_wherever_the_machine_is(
    date: str, seconds: float | None, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setenv("TZ", zone)
        time.tzset()
        assert seconds_of(date) == seconds
    time.tzset()
