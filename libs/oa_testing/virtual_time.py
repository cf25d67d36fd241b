"""An event loop whose time passes only when nothing is left to do: hours take milliseconds, and twice the same."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class NothingWillHappen(RuntimeError):
    """Everything waits, and nobody has a timer: the simulated world is stuck."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 s and jumps from one timer to the next. No I/O, no threads.

    What asyncio does for files, slow callbacks and other threads is two fifths of a schedule's work, so the loop's turn
    and its queues are our own. Timers of the same instant run in the order in which they were set.
    """

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now_s = 0.0
        self._due: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_set = itertools.count()

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def hang(self, seconds: float) -> None:
        """Let time pass in which the loop does nothing, as when something holds it up."""
        self._now_s += seconds

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Call it in the next turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._due.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call it when that time has come."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._timers_set), handle))
        return handle

    def close(self) -> None:
        """What has not run is dropped."""
        super().close()
        self._due.clear()
        self._timers.clear()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def _run_once(self) -> None:
        due, timers = self._due, self._timers
        if not due:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            if not timers:
                raise NothingWillHappen
            self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            due.append(heapq.heappop(timers)[2])
        for _ in range(len(due)):
            handle = due.popleft()
            if not handle.cancelled():
                handle._run()


def run_virtual(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs `work()` on a virtual loop of its own and returns what it gives."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())
