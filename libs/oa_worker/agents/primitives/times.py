"""Times that begin now, and waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from oa_base.refusal import Refusal
from oa_wire.given import check_duration

LOOK_AGAIN_S = 30.0
"""Whoever waits for a time looks at the clock again after this time: the machine may have slept, and timers with it."""


def time_in(delay: timedelta, field: str, now: datetime) -> datetime:
    """The time `delay` after `now`. Raises Refusal `invalid_value` for one that no calendar has, and for no time."""
    check_duration(delay, field)
    try:
        return now + delay
    except OverflowError:
        raise Refusal("invalid_value", f"{field} is longer than the calendar; shorten it", field=field) from None


def seconds_to_wait(end: datetime, now: datetime) -> float:
    """How long to wait before the next look at the clock; 0 if `end` has come."""
    return min(max(0.0, (end - now).total_seconds()), LOOK_AGAIN_S)


async def wait_until(end: datetime, now: Callable[[], datetime]) -> None:
    """Wait until `end`, by the clock `now`."""
    while (left_s := seconds_to_wait(end, now())) > 0:
        await asyncio.sleep(left_s)
