"""Watches the log of receipts: a receipt must be in it, and it must continue the log that was seen before.

A receipt alone can't show that it was not replaced or removed. Therefore the newest verified checkpoint is kept, and
the next one must continue it (docs/protocol/receipt-log.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from oa_client.core.models import InclusionProof
from oa_runlog.proof.checkpoint import Checkpoint, check_growth, parse_checkpoint, verify_logged, verify_receipt_log
from oa_runlog.proof.receipt import ReceiptFacts, SignedReceipt


class CheckpointStore(Protocol):
    """Keeps the newest verified checkpoint of one site."""

    def load(self) -> bytes | None:
        """Return the signed note."""

    def save(self, note: bytes) -> None:
        """Replace the note, whole or not at all."""

    def forget(self) -> None:
        """Forget the checkpoint, and trust the next one."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Return the lock that is held while the checkpoint is replaced, and that excludes other processes, too."""


class LogProofs(Protocol):
    """A source of proofs about the log: `oa_client.edge.commands.Commands`."""

    async def inclusion_proof(self, run_id: str) -> InclusionProof:
        """The proof that a run's receipt is in the log."""

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """The proof that the log only grew."""


@dataclass(frozen=True)
class Logged:
    """A receipt is leaf `leaf_index` of the log `now`, which continues the log `seen` before, if there is one."""

    leaf_index: int
    now: Checkpoint
    seen: Checkpoint | None


async def check_logged(
    proofs: LogProofs, store: CheckpointStore, keys: Mapping[str, bytes], receipt: SignedReceipt, facts: ReceiptFacts
) -> Logged:
    """Check that a verified receipt is in the log, and that the log continues the one seen last. Keep the newer one.

    `keys`: the pinned receipt keys, which sign the log too. Raises Refusal: `not_logged_yet`; `checkpoint_malformed`,
    `unknown_key`, `signature_invalid`; `not_in_log`; `log_rolled_back`, `log_forked`.
    """
    seen = _kept(store)  # before the site is asked: another process may keep a newer one meanwhile
    proof = await proofs.inclusion_proof(receipt.run_id)
    now = verify_receipt_log(proof.checkpoint, keys.values())
    if seen is not None:
        await _check_continues(proofs, seen, now)
    verify_logged(receipt, proof.leaf_index, proof.hashes, now)
    await _keep_newer(proofs, store, seen, now, proof.checkpoint)
    return Logged(proof.leaf_index, now, seen)


async def _keep_newer(
    proofs: LogProofs, store: CheckpointStore, compared: Checkpoint | None, now: Checkpoint, note: bytes
) -> None:
    """Keep `now`, whose note is `note`, unless a newer checkpoint is kept. One that another process has kept since
    `compared` must be of the same log: two that continue what was seen before may still contradict each other."""
    while True:
        async with store.exclusive():
            newest = _kept(store)
            if newest is None or newest == compared:
                if newest is None or now.size > newest.size:
                    store.save(note)
                return
        # The site is asked without the lock, so that nobody waits for it. Another one may be kept by then.
        older, newer = (newest, now) if newest.size <= now.size else (now, newest)
        await _check_continues(proofs, older, newer)
        compared = newest


def _kept(store: CheckpointStore) -> Checkpoint | None:
    """The kept checkpoint. It was verified when it was kept, and the file is the user's own."""
    kept = store.load()
    return None if kept is None else parse_checkpoint(kept.decode().rpartition("\n\n")[0] + "\n")


async def _check_continues(proofs: LogProofs, seen: Checkpoint, now: Checkpoint) -> None:
    grew = seen.origin == now.origin and 0 < seen.size < now.size
    check_growth(seen, now, await proofs.consistency_proof(seen.size, now.size) if grew else [])
