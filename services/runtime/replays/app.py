"""Replay artifacts as callers read them: in pieces. For each piece, any replica returns the same bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_runlog.proof.receipt import SignedReceipt
from services.runtime.archive.app.artifacts import Artifacts
from services.runtime.archive.app.spool import Spool
from services.runtime.receipts.app.receipts import Receipts
from services.runtime.replays import metrics
from services.runtime.replays.limits import ReplayLimits


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of an artifact of `total_bytes` with this SHA-256; empty at its end."""

    data: bytes
    total_bytes: int
    sha256: bytes


class Replays:
    """Reads artifacts. The ones read last are kept on disk, so that reading on is cheap."""

    def __init__(self, receipts: Receipts, artifacts: Artifacts, limits: ReplayLimits) -> None:
        self._receipts = receipts
        self._artifacts = artifacts
        self._limits = limits
        self._kept: OrderedDict[SignedReceipt, Spool] = OrderedDict()
        self._making: dict[SignedReceipt, asyncio.Future[Spool]] = {}

    async def read(self, principal: Principal, run_id: str, offset: int) -> Piece:
        """The piece at `offset`.

        Raises Refusal not_found, run_not_finished, invalid_value, archive_damaged, limit_reached, unavailable.
        """
        receipt = await self._receipts.receipt(principal, run_id)
        spool = await self._spool(receipt)
        if offset > spool.size:
            text = f"the artifact has {spool.size} bytes; read from an offset within it"
            raise Refusal("invalid_value", text, field="offset", metadata={"total_bytes": str(spool.size)})
        data = await asyncio.to_thread(spool.read, offset, self._limits.page_bytes)
        return Piece(data, spool.size, spool.sha256)

    async def _spool(self, receipt: SignedReceipt) -> Spool:
        """The artifact, made once for all callers that ask for it at the same time. It is kept by its receipt: after
        events were lost, a run may end differently."""
        if receipt in self._kept:
            self._kept.move_to_end(receipt)
            return self._kept[receipt]
        if receipt not in self._making:
            self._making[receipt] = asyncio.ensure_future(self._make(receipt))
            self._making[receipt].add_done_callback(lambda made: self._made(receipt, made))
        return await asyncio.shield(self._making[receipt])

    async def _make(self, receipt: SignedReceipt) -> Spool:
        spool = await self._artifacts.artifact(receipt)
        metrics.ARTIFACTS_MADE.inc()
        return spool

    def _made(self, receipt: SignedReceipt, made: asyncio.Future[Spool]) -> None:
        del self._making[receipt]
        if made.cancelled() or made.exception() is not None:
            return
        self._kept[receipt] = made.result()
        while len(self._kept) > 1 and self._are_too_many():
            self._kept.popitem(last=False)  # its readers still hold it

    def _are_too_many(self) -> bool:
        size = sum(one.size for one in self._kept.values())
        return len(self._kept) > self._limits.cache_artifacts or size > self._limits.cache_bytes
