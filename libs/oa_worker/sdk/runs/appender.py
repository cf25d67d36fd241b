"""One run's appends: coalesced, paced, one in flight, answered exactly once.

One append of a run is in flight at a time, never more. A refused append ("too fast, come back in 40 ms") is sent
again, and nothing that was emitted after it may be stored before it. While one is in flight the buffer fills, so
throughput comes from larger appends and not from more of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable

from oa_base.backoff import Backoff
from oa_base.catalogue import ClientAction
from oa_base.clock import SECOND_NS
from oa_base.rate import Rate, TokenBucket
from oa_base.refusal import Refusal
from oa_worker.sdk.limits import WorkerLimits
from oa_worker.sdk.runs.buffer import EventBuffer
from oa_worker.sdk.transport.wire import check_nesting, refusal_of_append
from openagents.runtime.v1.event_pb2 import EventBody, RunFinished
from openagents.runtime.v1.worker_service_pb2 import AppendEventsRequest, AppendEventsResponse, AppendRefused

Submit = Callable[[AppendEventsRequest], Awaitable[AppendEventsResponse | AppendRefused]]
"""Sends an append and waits for its answer, across any number of reconnects."""


class RunAppender:
    """`emit` events, then `finish`. `pump` is the task between; it ends after the finish or with a Refusal."""

    def __init__(self, run_id: str, lease_epoch: int, submit: Submit, limits: WorkerLimits) -> None:
        self._run_id = run_id
        self._lease_epoch = lease_epoch
        self._submit = submit
        self._limits = limits
        self._buffer = EventBuffer(max_text_bytes=limits.max_text_bytes)
        # In any second: per_second + burst, which is exactly what the authority allows.
        per_second = limits.events_per_second * limits.pace_share
        burst = max(1, int(limits.events_per_second - per_second))
        self._pace = TokenBucket(Rate.per_second(per_second, burst), self._now_ns())
        self._appends = 0
        self._finishing = False
        self._refusal: Refusal | None = None
        self._newest_refusal: Refusal | None = None
        self._filled, self._urgent, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()
        self._progress = asyncio.Event()
        self.appended_events = 0

    @property
    def refusal(self) -> Refusal | None:
        """Why the log takes no more of our events; None while it takes them."""
        return self._refusal

    async def emit(self, event: EventBody) -> None:
        """Queue an event; waits while too much is queued.

        Raises Refusal once the log takes no more, and `invalid_value` for an event that nobody could read.
        """
        check_nesting(event)
        while not self._room.is_set() and self._refusal is None:
            await self._room.wait()
        self._raise_refusal()
        if self._finishing:
            raise log_is_closed()
        self._put(event)

    async def stored(self) -> None:
        """Return when everything that was emitted before is stored. Raises Refusal once the log takes no more."""
        target = self._buffer.added
        while self.appended_events < target:
            self._raise_refusal()
            await self._progress.wait()

    async def finish(self, finish: RunFinished) -> None:
        """Queue the last event; `pump` ends when everything has been answered."""
        self._raise_refusal()
        self._finishing = True
        self._put(EventBody(run_finished=finish))

    async def append_finish(self, finish: RunFinished) -> None:
        """After `pump` ended with a Refusal: append this and nothing else. Raises Refusal when that is refused too."""
        # The log stays closed for everybody else.
        await self._append([EventBody(run_finished=finish)], despite=self._newest_refusal)

    def close(self, refusal: Refusal) -> None:
        """Take no more events, forget those that wait, and tell every task that waits why."""
        self._newest_refusal = refusal
        if self._refusal is None:
            self._refusal = refusal
        for event in (self._room, self._filled, self._urgent, self._progress):
            event.set()

    async def pump(self) -> None:
        """Append what is emitted until the finish is stored. Raises Refusal when the log takes no more."""
        try:
            while not (self._finishing and not self._buffer):
                await self._until_due()
                self._raise_refusal()
                await self._append(self._take())
        except Refusal as refusal:
            self.close(refusal)
            raise

    def _put(self, event: EventBody) -> None:
        self._buffer.add(event)
        self._note_buffer()

    def _note_buffer(self) -> None:
        """Set the three signals to what the buffer holds now."""
        buffer, limits = self._buffer, self._limits
        urgent = not buffer.only_text or buffer.bytes >= limits.flush_bytes
        full = buffer.bytes >= limits.max_buffered_bytes or len(buffer) >= limits.max_buffered_events
        for event, holds in ((self._filled, len(buffer) > 0), (self._urgent, urgent), (self._room, not full)):
            if holds:
                event.set()
            else:
                event.clear()

    async def _until_due(self) -> None:
        await self._filled.wait()
        if not self._urgent.is_set():
            with contextlib.suppress(TimeoutError):  # little text, and it has waited long enough
                async with asyncio.timeout(self._limits.flush_interval_ms / 1000):
                    await self._urgent.wait()
        while self._refusal is None and (wait_ns := self._pace.wait_ns(self._now_ns())) > 0:
            await asyncio.sleep(wait_ns / SECOND_NS)

    def _take(self) -> list[EventBody]:
        max_events = min(self._limits.max_append_events, self._pace.available(self._now_ns()))
        events = self._buffer.take(max_events=max_events, max_bytes=self._limits.max_append_bytes)
        self._note_buffer()
        return events

    async def _append(self, events: list[EventBody], despite: Refusal | None = None) -> None:
        """Append events. Raises Refusal, also for any but `despite` that closed the log meanwhile."""
        self._appends += 1
        # Unique in the run: no other worker ever has this epoch.
        key = f"e{self._lease_epoch}-{self._appends}"
        request = AppendEventsRequest(
            run_id=self._run_id, lease_epoch=self._lease_epoch, idempotency_key=key, events=events
        )
        backoff, attempts = Backoff(self._limits.retry_min_ms, self._limits.retry_max_ms), itertools.count()
        while isinstance(answer := await self._submit(request), AppendRefused):
            refusal = refusal_of_append(answer)
            if refusal.info.action is not ClientAction.RETRY:
                raise refusal
            delay_ms = backoff.ceiling_ms(next(attempts))
            await asyncio.sleep((refusal.retry_after_ms or delay_ms) / 1000)
            if self._newest_refusal is not None and self._newest_refusal is not despite:
                raise self._newest_refusal
        self._pace.take(self._now_ns(), len(events))
        self.appended_events += len(events)
        self._progress.set()
        self._progress = asyncio.Event()

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    @staticmethod
    def _now_ns() -> int:
        return int(asyncio.get_running_loop().time() * SECOND_NS)


def log_is_closed() -> RuntimeError:
    """The error of a task that is left behind and says something after its adapter has returned."""
    return RuntimeError("emit after the adapter returned: the run's log is closed")
