"""Measures how many runs wait for a worker, and how long the first of them has waited."""

from __future__ import annotations

import asyncio

import structlog

from oa_platform.health.failures import surviving
from services.runtime.workers import metrics
from services.runtime.workers.app.ports import WorkerStore

_log = structlog.get_logger(__name__)


class QueueWatch:
    """The watch of one replica. All of them see the same queue."""

    def __init__(self, store: WorkerStore, interval_ms: int) -> None:
        """`interval_ms`: the pause between looks."""
        self._store = store
        self._interval_ms = interval_ms

    async def run(self) -> None:
        """Run until canceled."""
        while True:
            with surviving(_log, "queue_not_seen"):
                await self.look()
            await asyncio.sleep(self._interval_ms / 1000)

    async def look(self) -> None:
        """Look once. Raises Refusal unavailable."""
        waiting = await self._store.waiting()
        metrics.RUNS_WAITING.set(waiting.runs)
        metrics.OLDEST_WAITING_SECONDS.set(waiting.oldest_s)
