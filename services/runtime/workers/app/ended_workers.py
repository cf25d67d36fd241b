"""Removes workers that ended long ago, with their topics.

The log and the runs go on naming a removed worker. A worker that comes back with a removed id is refused with
`not_found`, and attaches without an id.
"""

from __future__ import annotations

import asyncio

import structlog

from oa_platform.health.failures import surviving
from services.runtime.workers.app.ports import WorkerStore
from services.runtime.workers.limits import WorkerLimits

_log = structlog.get_logger(__name__)


class EndedWorkers:
    """The sweep of one replica. Sweeps of several replicas do not get in each other's way."""

    def __init__(self, store: WorkerStore, limits: WorkerLimits) -> None:
        self._store = store
        self._limits = limits

    async def run(self) -> None:
        """Sweep now and then until canceled."""
        while True:
            with surviving(_log, "ended_workers_not_removed"):
                await self.sweep()
            await asyncio.sleep(self._limits.sweep_interval_ms / 1000)

    async def sweep(self) -> None:
        """Look at all workers that have ended, a page at a time. Raises Refusal unavailable."""
        after: str | None = ""
        while after is not None:
            removed, after = await self._store.remove_ended(
                after, self._limits.ended_kept_days, self._limits.swept_page
            )
            if removed:
                _log.info("ended_workers_removed", workers=removed)
