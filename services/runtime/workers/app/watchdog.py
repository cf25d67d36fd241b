"""Finds workers that are lost, cancels that are due, and runs whose time is over.

See `domain.vigil` for how silence is measured.

Any number of replicas may do this at once: a verdict is stored only if the sign of life behind it is still the last
one, and whether a run is lost or ended is decided under its partition's lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import Quarantine
from oa_platform.telemetry.metrics import show_at_zero
from oa_runlog.authority.commands import CancelDeadline, TimeLimit
from services.runtime.log.app.log import Log
from services.runtime.workers import metrics
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.ports import Seen, WorkerStore
from services.runtime.workers.app.workers import Workers
from services.runtime.workers.domain.vigil import LossCause, Vigil
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
        accepts: Callable[[], Awaitable[bool]],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`accepts` says whether workers can attach to this replica now; `now_s` is a clock that never goes back."""
        self._log = log
        self._workers = workers
        self._attached = attached
        self._store = store
        self._limits = limits
        self._accepts = accepts
        self._now_s = now_s
        self._vigil = Vigil(
            limits.lost_after_ms / 1000,
            late_after_s=limits.late_after_ms / 1000,
            absent_after_s=limits.absent_after_ms / 1000,
            cancel_after_s=cancel_deadline_ms / 1000,
        )
        self._broken = Quarantine("watchdog", "run_id", limits.quarantine)
        self._failing_since_s: float | None = None
        self._sent_away = False
        show_at_zero(metrics.WORKERS_LOST, LossCause)

    async def run(self) -> None:
        """Run until canceled."""
        while True:
            await self.look_once()
            await asyncio.sleep(self._limits.watch_interval_ms / 1000)

    async def look_once(self) -> None:
        """Look once. If the look fails, what was seen before no longer counts."""
        try:
            await self._look()
        except Exception as error:  # noqa: BLE001 - the next look may succeed, and the next process would fail, too
            self._vigil.forget()
            metrics.LOOKS_FAILED.inc()
            note_survived(_log, "watch_failed", error)
            self._send_away(self._now_s())

    def _send_away(self, now_s: float) -> None:
        """Send workers elsewhere: no sign of life is stored here, and another replica may count them as silent."""
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if self._sent_away or now_s - self._failing_since_s < self._limits.late_after_ms / 1000:
            return
        self._sent_away = True
        workers = len(self._attached.by_id)
        _log.warning("workers_sent_away", workers=workers)
        metrics.WORKERS_SENT_AWAY.inc(workers)
        self._attached.drain_all()

    async def _look(self) -> None:
        seen = await self._see()
        self._failing_since_s, self._sent_away = None, False
        now_s = self._now_s()
        losses = {loss.sign.worker_id: loss for loss in self._vigil.lost(now_s, seen.replicas, seen.signs)}
        for worker_id in await self._store.lose_workers([loss.sign for loss in losses.values()]):
            cause = losses[worker_id].cause
            metrics.WORKERS_LOST.labels(cause).inc()
            _log.warning("worker_lost", worker_id=worker_id, cause=cause)
        # Also those that another replica marked but did not give up: marking and giving up are two steps.
        page, left_out = self._limits.watch_page, self._workers.broken.ids
        await self._workers.give_up(await self._store.leases_of_ended_workers(page, left_out))
        self._attached.end_left(seen.left)
        await self._end_due(self._vigil.due(now_s, await self._store.canceling_runs()))
        over = await self._store.overdue_runs(page, self._broken.ids)
        (await self._broken.attempt_each({run_id: partial(self._end_overdue, run_id) for run_id in over})).check()
        await self._store.forget_replicas({one: seen.replicas[one] for one in self._vigil.absent(now_s, seen.replicas)})

    async def _end_due(self, canceling: Sequence[str]) -> None:
        left_out = set(self._broken.ids)
        due = [run_id for run_id in canceling if run_id not in left_out][: self._limits.watch_page]
        (await self._broken.attempt_each({one: partial(self._log.do, CancelDeadline(one)) for one in due})).check()

    async def _end_overdue(self, run_id: str) -> None:
        applied = await self._log.do(TimeLimit(run_id))
        if not applied.repeated and applied.state is not None and applied.state.finish is not None:
            reason = applied.state.finish.reason
            metrics.RUNS_TIMED_OUT.labels(reason).inc()
            _log.info("run_timed_out", run_id=run_id, reason=reason)

    async def _see(self) -> Seen:
        accepts = await self._accepts()
        attached = {worker_id: one.attachment_id for worker_id, one in self._attached.by_id.items()}
        heard = self._attached.take_heard()
        try:
            return await self._store.look(attached, heard, accepts=accepts)
        except BaseException:
            self._attached.give_back(heard)
            raise
