"""Whether the database has been silent towards this process for so long that other replicas had better be called."""

from __future__ import annotations

import asyncio


class Silence:
    """Begins when a look has failed and nothing has succeeded for `after_s`; ends with the next success.

    A slow or busy database is not silent, because work on it still succeeds. A process that stood still does not take
    its own pause for silence, because only a failed look begins one. Times are in seconds, of any clock that never
    steps back.
    """

    def __init__(self, after_s: float, now_s: float) -> None:
        self._after_s = after_s
        self._answered_s = now_s
        self.began = asyncio.Event()
        """Set while the database is silent."""
        self.ended = asyncio.Event()
        """Set while it is not."""
        self.ended.set()

    def answered(self, now_s: float) -> None:
        """Note that some work on the database has succeeded."""
        self._answered_s = now_s
        if self.began.is_set():
            self.began.clear()
            self.ended.set()

    def failed(self, now_s: float) -> None:
        """Note that a look at the database has failed, or has not been answered yet."""
        if now_s - self._answered_s >= self._after_s and self.ended.is_set():
            self.ended.clear()
            self.began.set()
