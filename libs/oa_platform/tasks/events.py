"""Waits for an event, up to a time limit, and tells whether anything was waited for."""

from __future__ import annotations

import asyncio


async def until_set(event: asyncio.Event, within_s: float) -> None:
    """Return when `event` is set, or after `within_s`, whichever comes first."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return


class LoopTurn:
    """The turn of the event loop in which this is made. Once it is over, something was waited for, and anything may
    have happened meanwhile."""

    def __init__(self) -> None:
        self._is_over = False
        self._next = asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._is_over = True

    def is_over(self) -> bool:
        """Whether the loop has turned. Ask once, at the end: from then on it is not watched."""
        self._next.cancel()
        return self._is_over
