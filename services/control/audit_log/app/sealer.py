"""Gives recorded events their places in the chains. Every replica tries; a lock admits one at a time.

A page is sealed in one transaction, so a crash in the middle leaves the chains unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from oa_base.clock import Clock
from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import Quarantine
from services.control.audit_log import metrics
from services.control.audit_log.app.tables import Sealing
from services.control.audit_log.domain import seals_of
from services.control.audit_log.limits import AuditLogLimits
from services.control.transactions.app import Transactions

_log = structlog.get_logger(__name__)


class Sealer:
    """The sealer of one replica."""

    def __init__(self, transactions: Transactions[Sealing], clock: Clock, limits: AuditLogLimits) -> None:
        self._transactions = transactions
        self._clock = clock
        self._limits = limits
        self._broken = Quarantine("audit log", "audit_id", limits.quarantine)

    async def run(self) -> None:
        """Seal until canceled. A failed attempt is repeated."""
        while True:
            try:
                await self.seal_all()
            except Exception as error:  # noqa: BLE001 - one that breaks must not end all sealing
                metrics.SEALS_FAILED.inc()
                note_survived(_log, "audit_not_sealed", error)
            await asyncio.sleep(self._limits.seal_interval_s)

    async def seal_all(self) -> None:
        """Seal all that wait, unless another replica is sealing. Raises Refusal `unavailable`."""
        while await self.seal_page():
            pass
        async with self._transactions.autocommit() as tx:
            oldest_s = (await tx.seals.backlog()).oldest_s
        metrics.OLDEST.set(0.0 if oldest_s is None else max(0.0, self._clock.now().timestamp() - oldest_s))

    async def seal_page(self) -> bool:
        """Seal one page. Return whether more events may wait for us: fewer than a page were all, and later ones wait
        for the next time, because a page of a few costs as much as one of many.

        An event that can't be sealed because of a defect goes on waiting, and later ones get their places before it: a
        chain is in the order of sealing, and nothing leaves those that wait without a seal.
        """
        async with self._transactions.autocommit() as tx:
            ids = await tx.seals.waiting(self._limits.sealed_at_once, [int(one) for one in self._broken.ids])
        sealed = await self._broken.together([str(one) for one in ids], self._seal) if ids else 0
        return sealed > 0 and len(ids) == self._limits.sealed_at_once

    async def _seal(self, ids: Sequence[str]) -> int:
        async with self._transactions.begin() as tx:
            if not await tx.seals.lock():
                return 0
            events = await tx.seals.events([int(one) for one in ids])
            if events:
                heads = await tx.seals.heads(sorted({event.org_id for event in events}))
                await tx.seals.seal(seals_of(events, heads))
        metrics.SEALED.inc(len(events))
        return len(events)

    async def sweep(self) -> None:
        """Drop events that are older than `kept_for`, a limited number at a time."""
        before = self._clock.now() - self._limits.kept_for
        async with self._transactions.begin() as tx:
            dropped = await tx.seals.drop(before, self._limits.dropped_at_once)
        if dropped:
            _log.info("audit_events_dropped", events=dropped)
