"""Live frames of one topic between their arrival and the write to sockets: their age at the write, and their traces.

Both are reported once per flush for all frames and subscribers of a topic. Frames from history say nothing about their
age, and the report does not wait for clients so slow that they read history.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from oa_platform.telemetry.tracing import record_span
from oa_topics.watcher import Origin
from services.khala_gateway.feeds.app.flusher import Flusher

DELIVER = "khala.deliver"
FIRST_WRITTEN = "first subscriber written"
_MAX_WAITING = 64


class Arrival(NamedTuple):
    """Frames up to `last_seq`; for traced ones, the time at which they arrived, in nanoseconds since 1970."""

    last_seq: int
    origin: Origin
    came_ns: int


class Arrivals:
    """Frames that have arrived and are not written yet; beyond a maximum number, later ones are not measured."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Arrival] = []

    def came(self, last_seq: int, origin: Origin) -> None:
        """Note that live frames up to `last_seq` have arrived."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(Arrival(last_seq, origin, time.time_ns() if origin.traceparent else 0))

    def up_to(self, head: int) -> Sequence[Arrival]:
        """The arrivals up to `head`, which are written now. Arrivals behind a hole keep waiting."""
        waiting = self._waiting
        if not waiting:
            return ()
        self._waiting = [one for one in waiting if one.last_seq > head]
        return [one for one in waiting if one.last_seq <= head] if self._waiting else waiting

    def forget(self) -> None:
        """Forget all arrivals, because the topic begins anew."""
        self._waiting = []


def deliver(arrived: Sequence[Arrival], write: Callable[[], None], flusher: Flusher) -> None:
    """Have everything that can be delivered written to all subscribers; then report the arrivals, if any of them took
    frames."""
    traced = [one for one in arrived if one.origin.traceparent]
    if traced:
        flusher.time_first()
    before = flusher.handed
    write()
    frames = flusher.handed - before
    for one in arrived if frames else ():
        flusher.aged(one.origin.recorded_ns)
    if traced:
        first_ns, last_ns = flusher.first_ns(), time.time_ns()
        for one in traced if frames else ():
            times_ns, events_ns = (one.came_ns, last_ns), {FIRST_WRITTEN: first_ns}
            record_span(DELIVER, one.origin.traceparent, times_ns, events_ns, {"oa.frames_written": frames})
