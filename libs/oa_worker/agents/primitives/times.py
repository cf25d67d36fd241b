"""Times that begin now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from oa_base.refusal import Refusal
from oa_wire.given import check_duration


def time_in(delay: timedelta, field: str) -> datetime:
    """The time after `delay`, in UTC. Raises Refusal `invalid_value` for one that no calendar has, and for no time."""
    check_duration(delay, field)
    try:
        return datetime.now(UTC) + delay
    except OverflowError:
        raise Refusal("invalid_value", f"{field} is longer than the calendar; shorten it", field=field) from None
