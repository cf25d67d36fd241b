"""An event loop whose time passes only when nothing is left to do: hours take milliseconds, and twice the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingWillHappen(RuntimeError):
    """Everything waits, and nobody has a timer: the simulated world is stuck."""


class _Idle(selectors.SelectSelector):
    """Waits for no file: the time that the loop would wait is the time that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing is ever ready; `timeout` seconds have passed."""
        if timeout is None:
            raise NothingWillHappen
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 s and jumps from one timer to the next. No I/O, no threads."""

    def __init__(self) -> None:
        self._idle = _Idle()
        super().__init__(self._idle)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._idle.now_s

    def hang(self, seconds: float) -> None:
        """Let time pass in which the loop does nothing, as when something holds it up."""
        self._idle.now_s += seconds


def run_virtual(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs `work()` on a virtual loop of its own and returns what it gives."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())
