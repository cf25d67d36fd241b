"""Tells watchers the state of workers: first of all workers, then of those that have changed.

The state is always read from the store: a hint that something may have changed only says when to look. So a lost hint
loses no change, and many changes cost one look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from oa_platform.tasks.events import until_set
from oa_runlog.events import EventType
from services.runtime.log.domain.records import LogRecord
from services.runtime.worker_watch.domain import StandingWorker, removed_workers
from services.runtime.worker_watch.limits import WorkerWatchLimits

_MOVES = frozenset({EventType.RUN_STARTED, EventType.RUN_FINISHED, EventType.EXECUTOR_LOST, EventType.ATTEMPT_FAILED})
"""Events with which a worker gets a run or no longer has it."""


class StandingWorkers(Protocol):
    """The state of workers."""

    async def standing(self, worker_ids: Sequence[str]) -> list[StandingWorker]:
        """All workers that have not ended, of all orgs, and these. Raises Refusal unavailable."""
        ...


class WorkerWatch:
    """See the module."""

    def __init__(self, store: StandingWorkers, limits: WorkerWatchLimits) -> None:
        self._store = store
        self._limits = limits
        self._watchers: set[asyncio.Event] = set()

    def changed(self) -> None:
        """Wake the watchers, because workers may have changed."""
        for wake in self._watchers:
            wake.set()

    def on_records(self, records: Sequence[LogRecord]) -> None:
        """Handle new records of the log."""
        if any(record.type in _MOVES for record in records):
            self.changed()

    async def watch(self, known: Sequence[str]) -> AsyncGenerator[list[StandingWorker], None]:
        """All workers that have not ended, and those of `known` that have; then the changed ones, without end.

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
                if is_first:
                    workers += removed_workers(set(known) - {worker.worker_id for worker in workers})
                fresh = [worker for worker in workers if told.get(worker.worker_id) != worker]
                told = {worker.worker_id: worker for worker in workers if not worker.has_ended}
                asked = list(told)
                if fresh or is_first:
                    yield fresh
                is_first = False
                await asyncio.sleep(self._limits.pause_ms / 1000)
                await until_set(wake, self._limits.interval_ms / 1000)
        finally:
            self._watchers.discard(wake)
