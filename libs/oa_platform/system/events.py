"""Waits for an event, up to a time limit."""

from __future__ import annotations

import asyncio


async def until_set(event: asyncio.Event, within_s: float) -> None:
    """Return when `event` is set, or after `within_s`, whichever comes first."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return
