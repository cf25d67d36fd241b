"""Timers that tell sessions, and subscriptions whose history was not available, that time has passed."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Protocol

from oa_khala.server.deadlines import NEVER
from oa_khala.server.session import ServerSession

TICK_MS = 50
"""Timers due within one tick ring together at its end: no deadline of a session needs more precision."""


class Rings(Protocol):
    """Something that waits for a time."""

    def ring(self, now_ms: int) -> None:
        """Note that the time has come."""
        ...


class Alarms:
    """Rings for everything in a gateway that waits with one event-loop timer: a timer for each takes over half a
    KiB."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        # Timers by the tick at whose beginning they are due; and these ticks as a heap.
        self._due: dict[int, dict[Rings, None]] = {}
        self._ticks: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._handle_tick = 0
        # The tick in which timers rang last. None rings in it again: one whose session's time stays in the past would
        # otherwise keep the loop busy for ever.
        self._rang_tick = -1

    def add(self, timer: Rings, at_ms: int) -> None:
        """Ring `timer` at `at_ms`, or up to a tick later."""
        tick = -(-at_ms // TICK_MS)
        if tick not in self._due:
            self._due[tick] = {}
            heapq.heappush(self._ticks, tick)
            self._arm()
        self._due[tick][timer] = None

    def remove(self, timer: Rings, at_ms: int) -> None:
        """Don't ring `timer`, which was added with the same `at_ms`."""
        self._due.get(-(-at_ms // TICK_MS), {}).pop(timer, None)

    def _arm(self) -> None:
        tick = max(self._ticks[0], self._rang_tick + 1)
        if self._handle is not None:
            if self._handle_tick <= tick:
                return
            self._handle.cancel()
        self._handle_tick = tick
        delay_s = max(0, self._handle_tick * TICK_MS - self._now_ms()) / 1000
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        """Ring all timers that are due, each once. A failing one doesn't affect the others."""
        loop, now_ms = asyncio.get_running_loop(), self._now_ms()
        self._rang_tick = max(self._rang_tick, now_ms // TICK_MS)
        due: list[Rings] = []
        while self._ticks and self._ticks[0] * TICK_MS <= now_ms:
            due += self._due.pop(heapq.heappop(self._ticks))
        self._handle = None
        for timer in due:
            try:
                timer.ring(now_ms)
            except Exception as error:  # noqa: BLE001 - as the loop does with what it calls
                loop.call_exception_handler({"message": "a timer failed", "exception": error})
        if self._ticks:
            self._arm()


class SessionTimer:
    """Calls `due` soon after the session's `wake_at_ms`."""

    __slots__ = ("_alarms", "_at_ms", "_due", "_session")

    def __init__(self, session: ServerSession, alarms: Alarms, due: Callable[[int], None]) -> None:
        self._session = session
        self._alarms = alarms
        self._due = due
        # When it rings; None when it does not.
        self._at_ms: int | None = None

    def arm(self) -> None:
        """Set the alarm again after something has happened, because `wake_at_ms` may have changed."""
        wake_at_ms = self._session.wake_at_ms
        if wake_at_ms == self._at_ms:
            return
        if self._at_ms is not None:
            self.stop()
        if wake_at_ms != NEVER:
            self._at_ms = wake_at_ms
            self._alarms.add(self, wake_at_ms)

    def stop(self) -> None:
        """Make no more calls."""
        if self._at_ms is not None:
            self._alarms.remove(self, self._at_ms)
            self._at_ms = None

    def ring(self, now_ms: int) -> None:
        """Call `due` with the time, unless the timer was stopped or set to a later time after the alarm."""
        if self._at_ms is not None and self._at_ms <= now_ms:
            self._at_ms = None
            self._due(now_ms)
