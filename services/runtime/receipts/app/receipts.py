"""Receipts as people ask for them."""

from __future__ import annotations

from typing import Protocol

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_runlog.proof.keys import ReceiptKey
from oa_runlog.proof.receipt import SignedReceipt
from services.runtime.runs.app import Runs


class ReceiptStore(Protocol):
    """Receipts, and the keys that they are signed with."""

    async def receipt(self, run_id: str) -> SignedReceipt | None:
        """The receipt of a run."""
        ...

    async def receipt_keys(self) -> list[ReceiptKey]:
        """All keys that receipts were ever signed with, the newest first."""
        ...


class Receipts:
    """Hands out receipts and the keys."""

    def __init__(self, runs: Runs, store: ReceiptStore) -> None:
        self._runs = runs
        self._store = store

    async def receipt(self, principal: Principal, run_id: str) -> SignedReceipt:
        """The receipt of a run. Raises Refusal not_found, run_not_finished."""
        run = await self._runs.get(principal, run_id)
        receipt = await self._store.receipt(run_id)
        if receipt is None:
            text = f"the run is {run.state.status}; ask again when it has ended"
            raise Refusal("run_not_finished", text, field="run_id", metadata={"status": str(run.state.status)})
        return receipt

    async def keys(self) -> list[ReceiptKey]:
        """All keys that receipts were ever signed with, the newest first."""
        return await self._store.receipt_keys()
