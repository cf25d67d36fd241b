"""How workers stand, told to who watches: all of them, then what has changed.

What is told is read, and not handed on: whoever says that something may have changed only says when to look. So nothing
is lost with a word that gets lost, and a crowd of changes is one look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from oa_runlog.events import EventType
from services.runtime.log.domain.records import LogRecord
from services.runtime.worker_watch.domain import StandingWorker
from services.runtime.worker_watch.limits import WorkerWatchLimits

_MOVES = frozenset({EventType.RUN_STARTED, EventType.RUN_FINISHED, EventType.EXECUTOR_LOST, EventType.ATTEMPT_FAILED})
"""Events with which a worker gets a run or has it no more."""


class StandingWorkers(Protocol):
    """How workers stand."""

    async def standing(self, worker_ids: Sequence[str]) -> list[StandingWorker]:
        """All that have not ended, of all orgs, and these. Raises Refusal unavailable."""
        ...


class WorkerWatch:
    """See the module."""

    def __init__(self, store: StandingWorkers, limits: WorkerWatchLimits) -> None:
        self._store = store
        self._limits = limits
        self._watchers: set[asyncio.Event] = set()

    def changed(self) -> None:
        """Workers may have changed."""
        for wake in self._watchers:
            wake.set()

    def on_records(self, records: Sequence[LogRecord]) -> None:
        """New records of the log."""
        if any(record.type in _MOVES for record in records):
            self.changed()

    async def watch(self, known: Sequence[str]) -> AsyncGenerator[list[StandingWorker], None]:
        """All workers that have not ended, and those of `known` that have; then what has changed, without end.

        Raises Refusal unavailable.
        """
        wake = asyncio.Event()
        self._watchers.add(wake)
        told: dict[str, StandingWorker] = {}
        asked: Sequence[str] = known
        is_first = True
        try:
            while True:
                wake.clear()
                workers = await self._store.standing(asked)
                fresh = [worker for worker in workers if told.get(worker.worker_id) != worker]
                told = {worker.worker_id: worker for worker in workers if not worker.has_ended}
                asked = list(told)
                if fresh or is_first:
                    yield fresh
                is_first = False
                await asyncio.sleep(self._limits.pause_ms / 1000)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.interval_ms / 1000):
                        await wake.wait()
        finally:
            self._watchers.discard(wake)
