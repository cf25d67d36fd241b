"""Hands waiting runs to attached workers.

Any number of replicas may do it at once: whether a run is assigned is decided under its partition's lock, so the second
replica to try finds that there is nothing to do.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from oa_base.refusal import Refusal
from oa_platform.process.word import Word
from oa_runlog.commands import AssignRun
from services.runtime.log.app.log import Log
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.ports import QueueRules, WaitingRun, WorkerStore
from services.runtime.workers.domain.turns import Turns
from services.runtime.workers.limits import WorkerLimits

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Gives runs to workers with a free slot, the matching adapter and the run's org."""

    def __init__(
        self, log: Log, attached: AttachedWorkers, store: WorkerStore, limits: WorkerLimits, rules: QueueRules
    ) -> None:
        self._log = log
        self._attached = attached
        self._store = store
        self._limits = limits
        self._rules = rules
        self._turns = Turns()
        self._next_look_s = 0.0
        self._word = Word()
        attached.on_work_available = self._word.give

    async def run(self) -> None:
        """Until cancelled: when something may have changed, and now and then."""
        while True:
            await self._word.within(self._limits.dispatch_interval_ms / 1000)
            try:
                await self.dispatch()
                await self._look_ahead()
            except Refusal as refusal:
                _log.warning("dispatch_failed", reason=refusal.reason)
                await asyncio.sleep(refusal.retry_after_ms / 1000)
                self._word.give()

    async def _look_ahead(self) -> None:
        """Once in an interval: be there when the next run's time comes."""
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + self._limits.dispatch_interval_ms / 1000
        wait_ms = await self._store.next_time_ms(self._limits.dispatch_interval_ms)
        if wait_ms is not None:
            asyncio.get_running_loop().call_later(wait_ms / 1000, self._word.give)

    async def dispatch(self) -> None:
        """Fill the free slots. Raises Refusal unavailable."""
        # The least busy first, so that runs spread over workers.
        for attachment in sorted(self._attached.by_id.values(), key=lambda one: len(one.leases)):
            if self._takes_runs(attachment):
                await self._fill(attachment)

    def _takes_runs(self, attachment: Attachment) -> bool:
        return attachment.takes_runs(time.monotonic(), self._limits.quiet_after_ms / 1000)

    async def _fill(self, attachment: Attachment) -> None:
        worker = attachment.worker
        limit = min(attachment.free_slots, self._limits.dispatch_page)
        runs = await self._store.waiting_runs(worker.org_id, worker.adapters, limit, self._rules, self._turns.marks)
        if not self._takes_runs(attachment):
            return  # it left meanwhile, and would hold the run until it counts as lost
        await asyncio.gather(*(self._assign(attachment, run) for run in runs))
        if len(runs) == self._limits.dispatch_page:
            self._word.give()

    async def _assign(self, attachment: Attachment, run: WaitingRun) -> None:
        """Try to give a run to the worker, who is told of it when `run.started` comes by in the tail."""
        attachment.reserved += 1
        try:
            await self._log.do(AssignRun(run.run_id, attachment.worker.worker_id))
            self._turns.served(run.user_id)
        except Refusal as refusal:
            # Another replica was faster, or the run has ended: it is not waiting any more, or has to wait longer.
            _log.debug("assignment_refused", run_id=run.run_id, reason=refusal.reason)
            if refusal.reason in ("unavailable", "overloaded"):
                raise
        finally:
            attachment.reserved -= 1
