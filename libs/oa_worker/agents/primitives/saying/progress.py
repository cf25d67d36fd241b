"""Progress for people: reports that come faster than the log should get them are joined; the newest one is stored."""

from __future__ import annotations

import asyncio

from oa_base.refusal import Refusal
from oa_wire.given import check_count, check_text
from oa_wire.rules import check_rules
from oa_worker.sdk.adapter import Emit
from openagents.runtime.v1 import event_pb2 as pb


class Progress:
    """The progress of one run on this worker: at most one event per interval, and the last report in any case."""

    def __init__(self, append: Emit, interval_ms: int) -> None:
        self._append = append
        self._interval_s = interval_ms / 1000
        self._newest: pb.ProgressReported | None = None
        """The report that is not stored yet."""
        self._free_at_s = 0.0
        self._later: asyncio.Task[None] | None = None
        self._ends = asyncio.Event()

    async def report(self, text: str, done: int | None, total: int | None) -> None:
        """Report how far the run has come; wait while the log is behind. Raises Refusal for an invalid report."""
        check_text(text, "text")
        for name, number in (("done", done), ("total", total)):
            if number is not None:
                check_count(number, name)
        reported = pb.ProgressReported(text=text, done=done, total=total)
        check_rules(reported)
        self._newest = reported
        if self._later is None and self._wait_s() <= 0:
            await self._store()
        elif self._later is None:
            self._later = asyncio.create_task(self._store_later())

    async def last(self) -> None:
        """Store the report that is not stored yet, because the run ends. Raises Refusal when the log takes no more."""
        self._ends.set()
        if self._later is not None:
            await self._later
        await self._store()

    def forget(self) -> None:
        """Store nothing more: the run is no longer this worker's."""
        if self._later is not None:
            self._later.cancel()

    async def _store_later(self) -> None:
        try:
            while self._newest is not None:
                try:
                    async with asyncio.timeout(self._wait_s()):
                        await self._ends.wait()
                except TimeoutError:
                    pass  # its time has come
                await self._store()
        except Refusal:
            pass  # from the log, which refuses everything that is appended from now on
        finally:
            self._later = None

    async def _store(self) -> None:
        newest, self._newest = self._newest, None
        if newest is not None:
            self._free_at_s = self._now_s() + self._interval_s
            await self._append(pb.EventBody(progress_reported=newest))

    def _wait_s(self) -> float:
        return self._free_at_s - self._now_s()

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
