"""When a session is told that time has passed."""

import asyncio
import heapq
from collections.abc import Callable

from oa_khala.server.session import ServerSession
from oa_khala.server.states import State

TICK_MS = 50
"""Who is due within one tick is told at its end, together: no deadline of a session needs to be kept more exactly."""


class Alarms:
    """Rings for all sessions of a gateway, with one timer of the event loop: one for each takes over half a KiB."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        # By the tick at whose beginning they are due; and these ticks, as a heap.
        self._due: dict[int, dict[SessionTimer, None]] = {}
        self._ticks: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._handle_tick = 0

    def add(self, timer: "SessionTimer", at_ms: int) -> None:
        """Ring `timer` at `at_ms`, or up to a tick later."""
        tick = _tick(at_ms)
        if tick not in self._due:
            self._due[tick] = {}
            heapq.heappush(self._ticks, tick)
            self._arm()
        self._due[tick][timer] = None

    def remove(self, timer: "SessionTimer", at_ms: int) -> None:
        """Don't ring `timer`, which was added with this `at_ms`."""
        self._due.get(_tick(at_ms), {}).pop(timer, None)

    def _arm(self) -> None:
        if self._handle is not None:
            if self._handle_tick <= self._ticks[0]:
                return
            self._handle.cancel()
        self._handle_tick = self._ticks[0]
        delay_s = max(0, self._handle_tick * TICK_MS - self._now_ms()) / 1000
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        """Each is called by the loop, so that one that fails harms no other."""
        self._handle = None
        loop, now_ms = asyncio.get_running_loop(), self._now_ms()
        while self._ticks and self._ticks[0] * TICK_MS <= now_ms:
            for timer in self._due.pop(heapq.heappop(self._ticks)):
                loop.call_soon(timer.ring)
        if self._ticks:
            self._arm()


class SessionTimer:
    """Calls `due` soon after the session's `wake_at_ms`; perhaps too early, which harms nothing."""

    __slots__ = ("_alarms", "_at_ms", "_due", "_session")

    def __init__(self, session: ServerSession, alarms: Alarms, due: Callable[[], None]) -> None:
        self._session = session
        self._alarms = alarms
        self._due = due
        # When it rings; None when it does not.
        self._at_ms: int | None = None

    def arm(self) -> None:
        """Something has happened: `wake_at_ms` may be another one."""
        if self._session.state is State.CLOSED:
            self.stop()
            return
        wake_at_ms = self._session.wake_at_ms
        if self._at_ms is not None:
            if wake_at_ms >= self._at_ms:
                return
            self._alarms.remove(self, self._at_ms)
        self._at_ms = wake_at_ms
        self._alarms.add(self, wake_at_ms)

    def stop(self) -> None:
        """Call no more."""
        if self._at_ms is not None:
            self._alarms.remove(self, self._at_ms)
            self._at_ms = None

    def ring(self) -> None:
        """It is time, unless it was stopped since the alarm."""
        if self._at_ms is not None:
            self.stop()
            self._due()


def _tick(at_ms: int) -> int:
    return -(-at_ms // TICK_MS)
