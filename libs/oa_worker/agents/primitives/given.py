"""What agents hand over as numbers and times: refused where it was said, with the name of the argument."""

from __future__ import annotations

import operator
from datetime import UTC, datetime, timedelta
from typing import SupportsIndex

from oa_base.refusal import Refusal

MAX_COUNT = 2**64 - 1
"""Largest number of things that an event can tell of."""


def check_count(number: SupportsIndex, field: str) -> None:
    """Raises Refusal `invalid_value` for what is no number of things."""
    try:
        is_one = 0 <= operator.index(number) <= MAX_COUNT
    except TypeError:
        is_one = False
    if not is_one:
        message = f"{field} must be a whole number from 0 to {MAX_COUNT}; count in whole things"
        raise Refusal("invalid_value", message, field=field)


def time_in(delay: timedelta, field: str) -> datetime:
    """The time after `delay`, in UTC. Raises Refusal `invalid_value` for one that no calendar has."""
    try:
        return datetime.now(UTC) + delay
    except OverflowError:
        raise Refusal("invalid_value", f"{field} is longer than the calendar; shorten it", field=field) from None
