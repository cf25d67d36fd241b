"""Finds workers that are lost and cancels that are due. How silence is counted: `domain.vigil`.

Any number of replicas may do it at once: a verdict is stored only if the sign of life that it was made on still is the
last one, and whether a run is lost or ended is decided under its partition's lock.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from oa_base.refusal import Refusal
from oa_runlog.commands import CancelDeadline
from services.runtime.log.app.log import Log
from services.runtime.workers import metrics
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.ports import WorkerStore
from services.runtime.workers.app.workers import Workers
from services.runtime.workers.domain.vigil import Vigil
from services.runtime.workers.limits import WorkerLimits

_log = structlog.get_logger(__name__)


class Watchdog:
    """The watchdog of one replica."""

    def __init__(
        self,
        log: Log,
        workers: Workers,
        attached: AttachedWorkers,
        store: WorkerStore,
        limits: WorkerLimits,
        cancel_deadline_ms: int,
    ) -> None:
        self._log = log
        self._workers = workers
        self._attached = attached
        self._store = store
        self._limits = limits
        lost_after_s = limits.lost_after_ms / 1000
        self._vigil = Vigil(lost_after_s, lost_after_s / 2, cancel_deadline_ms / 1000)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except Refusal as refusal:
                self._vigil.forget()
                metrics.LOOKS_FAILED.inc()
                _log.warning("watch_failed", reason=refusal.reason)
            await asyncio.sleep(self._limits.watch_interval_ms / 1000)

    async def look(self) -> None:
        """One look. Raises Refusal unavailable."""
        seen = await self._store.look(list(self._attached.by_id))
        now_s = time.monotonic()
        for worker_id in await self._store.lose_workers(self._vigil.silent(now_s, seen.replicas, seen.signs)):
            metrics.WORKERS_LOST.inc()
            _log.warning("worker_lost", worker_id=worker_id)
        # Also those that another replica marked and did not come to: marking and giving up are two steps.
        await self._workers.give_up(await self._store.leases_of_ended_workers(self._limits.watch_page))
        self._attached.end_lost(seen.lost)
        due = self._vigil.due(now_s, await self._store.canceling_runs())
        await asyncio.gather(*(self._log.do(CancelDeadline(run_id)) for run_id in due[: self._limits.watch_page]))
        await self._store.forget_replicas({one: seen.replicas[one] for one in self._vigil.absent(now_s, seen.replicas)})
