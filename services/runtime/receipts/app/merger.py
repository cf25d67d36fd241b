"""Merges receipts into the log of receipts. Every replica tries; the log's lock admits one at a time.

A merge is one transaction: leaves, nodes, frontier and the signed checkpoint are stored together or not at all, so a
crash in the middle leaves the log as it was, and a signed checkpoint is never contradicted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import Quarantine
from oa_platform.tasks.events import until_set
from oa_runlog.events import EventType
from oa_runlog.proof.merkle import Frontier
from oa_runlog.proof.signing import NoteSigner, sign_checkpoint
from services.runtime.log.domain.records import LogRecord
from services.runtime.receipts import metrics
from services.runtime.receipts.app.receipt_log import MergeTransaction, ReceiptLogStore
from services.runtime.receipts.domain import grow
from services.runtime.receipts.limits import MergeLimits

_log = structlog.get_logger(__name__)


class Merger:
    """The merger of one replica. It is a listener of the tail: finished runs wake it."""

    def __init__(self, store: ReceiptLogStore, signer: NoteSigner, key_id: str, limits: MergeLimits) -> None:
        self._store = store
        self._signer = signer
        self._key_id = key_id
        self._limits = limits
        self._wake = asyncio.Event()
        self._broken = Quarantine("receipts", "run_id", limits.quarantine)

    def on_records(self, records: Sequence[LogRecord]) -> None:
        """Take new records of the log."""
        if EventType.RUN_FINISHED in {record.type for record in records}:
            self._wake.set()

    async def run(self) -> None:
        """Merge until canceled: soon after a run has finished, and from time to time."""
        while True:
            try:
                await self.merge_all()
            except Exception as error:  # noqa: BLE001 - runs go on while receipts wait for their checkpoint
                metrics.MERGES_FAILED.inc()
                note_survived(_log, "merge_failed", error)
            await self._pause()

    async def _pause(self) -> None:
        await until_set(self._wake, self._limits.poll_ms / 1000)
        if self._wake.is_set():
            # Runs that finish at the same time go into one checkpoint.
            await asyncio.sleep(self._limits.pause_ms / 1000)
        self._wake.clear()

    async def merge_all(self) -> None:
        """Merge until nothing waits, or another replica does it. Raises Refusal unavailable."""
        while await self.merge_page():
            pass
        backlog = await self._store.backlog()
        metrics.UNMERGED.set(backlog.receipts)
        metrics.MERGE_LAG_SECONDS.set(backlog.oldest_s)

    async def merge_page(self) -> bool:
        """Merge one page; return whether more receipts may wait for us. Fewer than a page were all.

        A receipt that can't be merged because of a defect goes on waiting, and later ones come before it in the log:
        their order proves nothing, and nothing leaves those that wait without being in the log.
        """
        waiting = await self._store.waiting(self._limits.page, self._broken.ids)
        merged = await self._broken.together(waiting, self._merge)
        return merged > 0 and len(waiting) == self._limits.page

    async def _merge(self, run_ids: Sequence[str]) -> int:
        async with self._store.merging() as transaction:
            if transaction is None:
                return 0
            receipts = await transaction.receipts(run_ids)
            frontier = transaction.frontier
            if receipts:
                growth = grow(frontier, receipts)
                await transaction.grow(growth)
                frontier = growth.frontier
            await self._sign(transaction, frontier)
        if receipts:
            metrics.RECEIPTS_MERGED.inc(len(receipts))
            _log.info("receipts_merged", receipts=len(receipts), size=frontier.size, root=frontier.root.hex())
        metrics.RECEIPT_LOG_SIZE.set(frontier.size)
        return len(receipts)

    async def _sign(self, transaction: MergeTransaction, frontier: Frontier) -> None:
        """Sign even a log that did not grow if our key is new: a verifier that trusts only this key can then follow."""
        if not await transaction.has_checkpoint(frontier.size, self._key_id):
            note = sign_checkpoint(frontier.size, frontier.root, self._signer)
            await transaction.add_checkpoint(frontier.size, self._key_id, note)
