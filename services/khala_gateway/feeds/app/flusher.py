"""When feeds and connections are pumped: at once after a quiet time, otherwise once a tick, so that frames leave
together."""

import asyncio
import time
from typing import Protocol

from oa_base.clock import SECOND_NS
from services.khala_gateway.feeds import metrics


class Pumped(Protocol):
    """Something that has work to do."""

    def pump(self) -> None:
        """Do some of the work; ask again for the rest."""
        ...


class Flusher:
    """Calls `pump` on everything that asked, in the order of asking, no more often than every `tick_ms`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_ms: float) -> None:
        self._loop = loop
        self._tick_s = tick_ms / 1000
        self._waiting: dict[Pumped, None] = {}
        self._handle: asyncio.Handle | None = None
        self._flushed_at = float("-inf")
        # Deliveries since the metrics were last updated: updating them costs more than a delivery.
        self._frames = 0
        self._bytes = 0
        self._is_flushing = False
        # When the first frames since `time_first` were handed to a connection; None while nobody asks, 0 until then.
        self._first_ns: int | None = None
        # When the oldest live event of this flush was recorded, in nanoseconds since 1970; 0 for none.
        self._recorded_ns = 0

    def ask(self, one: Pumped) -> None:
        """Have `one` pumped soon. Asking twice is the same as asking once."""
        self._waiting[one] = None
        self._flush_soon()

    def forget(self, one: Pumped) -> None:
        """Don't pump `one`, which has nothing left to do."""
        self._waiting.pop(one, None)

    @property
    def handed(self) -> int:
        """Frames that this flush has handed to connections so far."""
        return self._frames

    def delivered(self, frames: int, size: int) -> None:
        """Count frames that were handed to connections, and their size in bytes."""
        if self._first_ns == 0 and frames:
            self._first_ns = time.time_ns()
        self._frames += frames
        self._bytes += size
        if not self._is_flushing:
            self._flush_soon()

    def time_first(self) -> None:
        """Note when the next frames are handed to a connection."""
        self._first_ns = 0

    def first_ns(self) -> int:
        """When that was, in nanoseconds since 1970; 0 if it was not. To be called once after `time_first`."""
        first_ns, self._first_ns = self._first_ns or 0, None
        return first_ns

    def aged(self, recorded_ns: int) -> None:
        """Note that a live event was handed to all clients that keep up. It was recorded at `recorded_ns`, by its
        source's clock; 0: it is not a record."""
        if recorded_ns and (not self._recorded_ns or recorded_ns < self._recorded_ns):
            self._recorded_ns = recorded_ns

    def _pump(self, one: Pumped) -> None:
        """Have `one` do its work. A failing one doesn't affect the others."""
        try:
            one.pump()
        except Exception as error:  # noqa: BLE001 - as the loop does with what it calls
            self._loop.call_exception_handler({"message": "something could not be pumped", "exception": error})

    def _flush_soon(self) -> None:
        if self._handle is None:
            due = self._flushed_at + self._tick_s
            late = self._loop.time() >= due
            self._handle = self._loop.call_soon(self._flush) if late else self._loop.call_at(due, self._flush)

    def _flush(self) -> None:
        self._handle = None
        self._flushed_at = self._loop.time()
        waiting, self._waiting = self._waiting, {}
        self._is_flushing = True
        try:
            for one in waiting:
                self._pump(one)
        finally:
            self._is_flushing = False
            metrics.DELIVERED.inc(self._frames)
            metrics.DELIVERED_BYTES.inc(self._bytes)
            self._frames = self._bytes = 0
        if self._recorded_ns:
            metrics.DELIVERY_AGE.observe(max(0, time.time_ns() - self._recorded_ns) / SECOND_NS)
            self._recorded_ns = 0
