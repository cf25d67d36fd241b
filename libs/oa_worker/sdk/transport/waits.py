"""How long a worker waits before it tries again, and for an answer."""

from __future__ import annotations

import asyncio
import random

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from oa_worker.sdk.limits import WorkerLimits


class Waits:
    """A worker that holds a run (`idle` is not set) takes only a share of the time that the authority waits for it."""

    def __init__(self, limits: WorkerLimits, idle: asyncio.Event) -> None:
        self._limits = limits
        self._idle = idle
        self._lost_after_ms = limits.reconnect_max_ms * 4
        """The limit that the authority stated; until then, a value that does not matter."""
        self.attached_at_s: float | None = None
        """When the newest stream began to stand; None if it never did."""

    def stands(self, lost_after_ms: int) -> None:
        """Note that the newest stream stands, and the limit that the authority stated."""
        self.attached_at_s = asyncio.get_running_loop().time()
        self._lost_after_ms = lost_after_ms or self._lost_after_ms

    def was_steady(self) -> bool:
        """Whether the newest stream stood for a while. One that breaks again and again is no reason to hurry."""
        if self.attached_at_s is None:
            return False
        return asyncio.get_running_loop().time() - self.attached_at_s >= self._limits.steady_after_ms / 1000

    def retry_ms(self, refusal: Refusal, failures: int) -> int:
        """Return the wait before another try after so many failures in a row, of which `refusal` is the last. After a
        steady stream, the first try is at once."""
        return max(refusal.retry_after_ms, self._backoff_ms(failures))

    def attach_timeout_s(self) -> float:
        """Maximum wait for the answer to `attach`."""
        return self._within_lost(self._limits.attach_timeout_ms, 4) / 1000

    def _backoff_ms(self, failures: int) -> int:
        if failures == 0:
            return 0
        max_ms = self._within_lost(self._limits.reconnect_max_ms, 8)
        return Backoff(self._limits.reconnect_min_ms, max_ms).wait_ms(failures - 1, random.random())

    def _within_lost(self, max_ms: int, share: int) -> int:
        return max_ms if self._idle.is_set() else min(max_ms, self._lost_after_ms // share)
