"""Proves the runs of one site to this client. Everything that is shown as proved comes from here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

from oa_client.core.store import WatermarkStore
from oa_client.follow.items import EventsArchived
from oa_client.follow.run_tail import RunTail, Subscribes
from oa_client.proofs.artifacts import Pieces, fetch_artifact, read_artifact_lines
from oa_client.proofs.pins import PinStore, trusted_keys
from oa_client.proofs.receipt_log import CheckpointStore, Logged, LogProofs, check_logged
from oa_khala.topics import run_events
from oa_runlog.proof.keys import ReceiptKey
from oa_runlog.proof.receipt import ReceiptFacts, SignedReceipt
from oa_runlog.proof.verify import VerifiedReplay, verify_artifact, verify_receipt, verify_record

Scratch = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens a file to write and read, which is removed after the block."""


class Receipts(Pieces, LogProofs, Protocol):
    """A source of receipts and everything that belongs to them: `oa_client.edge.commands.Commands`."""

    async def receipt(self, run_id: str) -> SignedReceipt:
        """The receipt of a run. Raises Refusal `run_not_finished` while it has none."""

    async def receipt_keys(self) -> list[ReceiptKey]:
        """Return all keys that receipts are or were signed with, as the site shows them."""


class Proved(NamedTuple):
    """A receipt, and the facts that it states, which have been checked."""

    receipt: SignedReceipt
    facts: ReceiptFacts


@dataclass(frozen=True)
class CheckedArtifact:
    """An artifact of the site that was verified with the pinned keys."""

    size_bytes: int
    replay: VerifiedReplay


class RunProofs:
    """See the module. Every method may raise the Refusals of the service behind it, and those of
    `oa_runlog.proof.verify`."""

    def __init__(
        self, receipts: Receipts, subscriptions: Subscribes, pins: PinStore, checkpoints: CheckpointStore
    ) -> None:
        self._receipts = receipts
        self._subscriptions = subscriptions
        self._pins = pins
        self._checkpoints = checkpoints

    async def keys(self) -> dict[str, bytes]:
        """The keys to check receipts with, pinned on first use.

        Raises Refusal `unknown_key` when the site shows none of the pinned keys.
        """
        return await self._trusted(self._pins.load())

    async def trust_anew(self) -> dict[str, bytes]:
        """Forget the pinned keys and the checkpoint that was seen last, and trust the keys that the site shows now."""
        self._checkpoints.forget()
        return await self._trusted({})

    async def _trusted(self, pinned: dict[str, bytes]) -> dict[str, bytes]:
        trusted = trusted_keys(pinned, await self._receipts.receipt_keys())
        if trusted != pinned:
            self._pins.save(trusted)
        return trusted

    async def receipt(self, run_id: str) -> Proved:
        """The receipt of a run, its signature checked against the pinned keys."""
        receipt = await self._receipts.receipt(run_id)
        return Proved(receipt, verify_receipt(receipt, await self.keys(), run_id=run_id))

    async def record(self, run_id: str, store: WatermarkStore) -> Proved:
        """The receipt of a run, checked against the pinned keys and every event that `store` holds."""
        receipt = await self._receipts.receipt(run_id)
        payloads = (element.payload for element in store.elements(run_events(run_id)))
        return Proved(receipt, verify_record(receipt, await self.keys(), payloads, run_id=run_id))

    async def followed_record(self, run_id: str, store: WatermarkStore) -> Proved:
        """Fetch the events that `store` lacks of a run that has ended, then check its record.

        Raises Refusal `run_not_finished`; EventsArchived when its events have left the log.
        """
        await self._receipts.receipt(run_id)  # a run that has not ended has none: raise, and don't wait for its end
        async with aclosing(RunTail(self._subscriptions, store, run_id).items()) as items:
            async for _ in items:
                pass
        return await self.record(run_id, store)

    async def whole_record(self, run_id: str, store: WatermarkStore, scratch: Scratch) -> Proved:
        """The receipt of a run that has ended, checked against every event. The events are followed into `store`, or
        read from its artifact if they were archived."""
        try:
            return await self.followed_record(run_id, store)
        except EventsArchived:
            with scratch() as file:
                replay = (await self.artifact(run_id, file)).replay
        return Proved(replay.receipt, replay.facts)

    async def logged(self, proved: Proved) -> Logged:
        """Return the place of a proved receipt in the log of receipts. Raises the Refusals of `check_logged`."""
        return await check_logged(self._receipts, self._checkpoints, await self.keys(), *proved)

    async def artifact(self, run_id: str, into: BinaryIO) -> CheckedArtifact:
        """Fetch the artifact of a run that has ended, archived or not, into an empty file, and check it.

        Raises Refusal: those of `fetch_artifact` and `oa_runlog.proof.verify.verify_artifact`.
        """
        keys = await self.keys()
        size_bytes = await fetch_artifact(self._receipts, run_id, into)
        into.seek(0)
        return CheckedArtifact(size_bytes, verify_artifact(read_artifact_lines(into), keys, run_id=run_id))
