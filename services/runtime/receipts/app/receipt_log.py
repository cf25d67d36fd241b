"""Answers about the log of receipts: its newest checkpoint, and proofs that a receipt is in it and that it only grew.

The nodes that a proof is made of never change, so reading the checkpoint first and the nodes after it needs no
transaction. A proof reads a logarithm of the log's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_runlog.proof.checkpoint import MAX_LOG_SIZE
from oa_runlog.proof.merkle import (
    Frontier,
    Node,
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    inclusion_proof,
)
from oa_runlog.proof.receipt import SignedReceipt
from services.runtime.receipts.app.receipts import Receipts
from services.runtime.receipts.domain import Growth
from services.runtime.receipts.limits import MergeLimits


@dataclass(frozen=True, slots=True)
class Backlog:
    """Receipts that wait to be merged, and how long the oldest has waited."""

    receipts: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """The newest checkpoint: the log's size, and the signed note, with the signatures of all keys that signed it."""

    size: int
    note: bytes


class MergeTransaction(Protocol):
    """One transaction that holds the log's lock."""

    frontier: Frontier

    async def receipts(self, run_ids: Sequence[str]) -> Sequence[SignedReceipt]:
        """The receipts of those of these runs that wait, in the order in which they are appended."""
        ...

    async def has_checkpoint(self, size: int, key_id: str) -> bool:
        """Whether this key has signed the log of this size."""
        ...

    async def grow(self, growth: Growth) -> None:
        """Store the growth."""
        ...

    async def add_checkpoint(self, size: int, key_id: str, note: bytes) -> None:
        """Store a signed checkpoint."""
        ...


class ReceiptLogStore(Protocol):
    """The log of receipts."""

    def merging(self) -> AbstractAsyncContextManager[MergeTransaction | None]:
        """A transaction with the lock; None when another replica has it."""
        ...

    async def waiting(self, limit: int, left_out: Sequence[str]) -> Sequence[str]:
        """The runs whose receipts are not in the log, the oldest first, without those that are left out."""
        ...

    async def backlog(self) -> Backlog:
        """The receipts that wait to be merged."""
        ...

    async def checkpoint(self) -> StoredCheckpoint | None:
        """The newest checkpoint; None before the first merge."""
        ...

    async def leaf_index(self, run_id: str) -> int | None:
        """Where the run's receipt is in the log."""
        ...

    async def nodes(self, nodes: Sequence[Node]) -> Mapping[Node, bytes]:
        """Hashes of stored nodes."""
        ...


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The proof that a receipt is leaf `leaf_index` of the log of the checkpoint `note`."""

    leaf_index: int
    hashes: list[bytes]
    note: bytes


class ReceiptLog:
    """Answers questions about the log."""

    def __init__(self, store: ReceiptLogStore, receipts: Receipts, limits: MergeLimits) -> None:
        self._store = store
        self._receipts = receipts
        self._limits = limits

    async def checkpoint(self) -> StoredCheckpoint:
        """The newest checkpoint. Raises Refusal unavailable before the first merge of a new installation."""
        newest = await self._store.checkpoint()
        if newest is None:
            text = "the log of receipts has no checkpoint yet; ask again in a moment"
            raise Refusal("unavailable", text, retry_after_ms=self._limits.poll_ms)
        return newest

    async def inclusion(self, principal: Principal, run_id: str) -> Inclusion:
        """The proof for the receipt of a run. Raises Refusal not_found, run_not_finished, not_logged_yet."""
        await self._receipts.receipt(principal, run_id)
        newest = await self.checkpoint()
        index = await self._store.leaf_index(run_id)
        if index is None or index >= newest.size:
            text = "the receipt is not in the log yet; ask again in a moment"
            raise Refusal("not_logged_yet", text, field="run_id", retry_after_ms=2 * self._limits.pause_ms)
        hashes = await self._store.nodes(inclusion_nodes(index, newest.size))
        return Inclusion(index, inclusion_proof(index, newest.size, hashes), newest.note)

    async def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """The proof that the log only grew from one size to the other. Raises Refusal invalid_value."""
        newest = await self.checkpoint()
        if new_size > newest.size:
            size = {"size": str(newest.size)}
            text = f"the log has {newest.size} leaves; ask for no more"
            raise Refusal("invalid_value", text, field="new_size", metadata=size)
        if not 0 < old_size <= new_size <= MAX_LOG_SIZE:
            raise Refusal(
                "invalid_value",
                "an earlier log has a leaf, and no more than the later one; give the sizes of two checkpoints",
                field="old_size",
            )
        hashes = await self._store.nodes(consistency_nodes(old_size, new_size))
        return consistency_proof(old_size, new_size, hashes)
