"""Moves finished runs into the archive once they are as old as their class says. A run is written, read back and
verified, and only then recorded and pruned, in one transaction.

Whenever the process is killed, the run is either in the log, or recorded and in the archive. At worst, an object
without a record is left behind, and the next try writes it again under the same name. Several replicas at once would
only do the same work twice, so a lease that may lapse is enough to make one of them do it.
"""

from __future__ import annotations

import asyncio

import structlog

from oa_base.refusal import Refusal
from oa_platform.config.shared import QuarantineSettings
from oa_platform.health.failures import note_survived, reason_of
from oa_platform.health.quarantine import Quarantine
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.replay import MAX_LINE_BYTES
from oa_runlog.proof.verify import Keys, VerifiedReplay, verify_artifact
from services.runtime.archive import metrics
from services.runtime.archive.app.archive import Archive, Archived, ArchiveRecords, Objects, pack
from services.runtime.archive.app.artifacts import Artifacts
from services.runtime.archive.app.spool import Spool
from services.runtime.archive.limits import ArchiveLimits
from services.runtime.receipts.app.receipts import ReceiptStore

_log = structlog.get_logger(__name__)


class Archiver:
    """The archiver of one replica."""

    def __init__(
        self,
        holder: str,
        receipts: ReceiptStore,
        records: ArchiveRecords,
        objects: Objects,
        artifacts: Artifacts,
        archive: Archive,
        limits: ArchiveLimits,
    ) -> None:
        self._holder = holder
        self._receipts = receipts
        self._records = records
        self._objects = objects
        self._artifacts = artifacts
        self._archive = archive
        self._limits = limits
        self._failed = Quarantine("archiver", "run_id", QuarantineSettings(retry_s=limits.retry_s))
        """Runs that could not be archived. They don't hold up the others."""

    async def run(self) -> None:
        """Archive runs that are due, until canceled."""
        while True:
            try:
                while await self.archive_page():
                    pass
            except Exception as error:  # noqa: BLE001 - runs go on while others wait for the archive
                metrics.ARCHIVES_FAILED.labels(reason_of(error)).inc()
                note_survived(_log, "archiving_failed", error)
            await asyncio.sleep(self._limits.poll_ms / 1000)

    async def archive_page(self) -> int:
        """Archive a page of runs that are due; return how many there were. 0 while another replica does it, and while
        more fail than can be left out: the archive is away, and others are not looked for at once."""
        if not await self._held():
            return 0
        due = await self._records.due(self._limits.classes.ages, self._failed.ids, self._limits.page)
        for run_id in due:
            if not await self._held():
                break
            await self._try(run_id)
        return len(due) if self._failed.has_room else 0

    async def _held(self) -> bool:
        return await self._records.hold(self._holder, self._limits.lease_ms)

    async def _try(self, run_id: str) -> None:
        try:
            await self.archive_run(run_id)
        except Refusal as refusal:
            self._failed.hold(run_id)
            metrics.ARCHIVES_FAILED.labels(refusal.reason).inc()
            _log.error("archive_failed", run_id=run_id, reason=refusal.reason, why=refusal.message)
        except Exception as error:  # noqa: BLE001 - one that breaks must not keep the others in the log
            self._failed.take(run_id, error)
            metrics.ARCHIVES_FAILED.labels(reason_of(error)).inc()

    async def archive_run(self, run_id: str) -> bool:
        """Archive a finished run; return False if that was done before.

        Raises Refusal unavailable, limit_reached, and archive_damaged when the stored artifact can't be verified.
        """
        receipt = await self._receipts.receipt(run_id)
        plain = await self._artifacts.from_log(receipt) if receipt is not None else None
        if receipt is None or plain is None:
            if await self._records.find(run_id) is not None:
                return False
            raise Refusal(
                "archive_damaged", "the run has no receipt, or events of it are missing in the log; look at both"
            )
        packed = await asyncio.to_thread(pack, plain, 2 * plain.size + (1 << 20), self._limits.zstd_level)
        archived = Archived(run_id, plain.sha256, plain.size, object_name(plain.sha256))
        await self._objects.put(archived.object, packed)
        verified = await self._verified(archived, receipt)
        chain_head = bytes.fromhex(verified.facts.chain_head)
        done = await self._records.archive(archived, packed.size, chain_head, self._limits.prune_timeout_ms)
        if done:
            metrics.RUNS_ARCHIVED.inc()
            metrics.ARCHIVED_BYTES.inc(packed.size)
            _log.info("run_archived", run_id=run_id, object=archived.object, bytes=plain.size, stored=packed.size)
        return done

    async def _verified(self, archived: Archived, receipt: SignedReceipt) -> VerifiedReplay:
        """Verify what the archive really holds now, as anybody else would."""
        stored = await self._archive.read(archived)
        keys = {key.key_id: key.public_key for key in await self._receipts.receipt_keys()}
        try:
            verified = await asyncio.to_thread(_verify, stored, keys, archived.run_id)
        except Refusal as refusal:
            text = (
                f"the artifact does not prove the run ({refusal.reason}: {refusal.message}); "
                "nothing was pruned, find out why"
            )
            raise Refusal("archive_damaged", text) from None
        if verified.receipt != receipt:
            text = "the artifact holds another receipt than the run's; nothing was pruned, find out why"
            raise Refusal("archive_damaged", text)
        return verified


def object_name(sha256: bytes) -> str:
    """The name of the object of an artifact with this hash."""
    return f"{sha256.hex()[:2]}/{sha256.hex()}.jsonl.zst"


def _verify(artifact: Spool, keys: Keys, run_id: str) -> VerifiedReplay:
    return verify_artifact(artifact.lines(MAX_LINE_BYTES), keys, run_id=run_id)
