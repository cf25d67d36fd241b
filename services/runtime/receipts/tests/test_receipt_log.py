"""The log of receipts as callers see it: proofs of one's own receipts, typed reasons for everything else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Secret
from oa_runlog import wire
from oa_runlog.proof.checkpoint import Checkpoint, check_growth, verify_logged, verify_receipt_log
from oa_runlog.proof.endorsement import endorsed
from oa_runlog.proof.keys import ReceiptKey
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.verify import verify_receipt
from oa_testing.postgres import Database
from openagents.runtime.v1 import receipt_service_pb2 as pb
from services.runtime.config import MergeSettings
from services.runtime.tests.finished import finished_runs
from services.runtime.tests.rig import (
    Replica,
    Somebody,
    receipt_pem,
    refusal_of_call,
    refusing,
    replica,
    runtime_settings,
    somebody,
)

QUICK = MergeSettings(pause_ms=1, poll_ms=20)
NEVER = MergeSettings(pause_ms=60_000, poll_ms=600_000)
NOBODYS_RUN = "run_01JD8V0000000000000000000A"


class Auditor:
    """Somebody who keeps keys and checkpoints."""

    def __init__(self, runtime: Replica, who: Somebody) -> None:
        self._receipts = runtime.receipts
        self._who = who.as_person()

    async def keys(self) -> dict[str, bytes]:
        return {key.key_id: key.public_key for key in await self.shown_keys()}

    async def shown_keys(self) -> list[ReceiptKey]:
        answer = await self._receipts.ListReceiptKeys(pb.ListReceiptKeysRequest(), metadata=self._who)
        return [wire.receipt_key_from_wire(key) for key in answer.keys]

    async def receipt(self, run_id: str) -> SignedReceipt:
        answer = await self._receipts.GetReceipt(pb.GetReceiptRequest(run_id=run_id), metadata=self._who)
        return wire.receipt_from_wire(answer.receipt)

    async def checkpoint(self) -> Checkpoint:
        answer = await refusing(self._receipts.GetLogCheckpoint(pb.GetLogCheckpointRequest(), metadata=self._who))
        return verify_receipt_log(answer.checkpoint, (await self.keys()).values())

    async def first_checkpoint(self) -> Checkpoint:
        """The newest checkpoint, once there is one."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return await self.checkpoint()
                except Refusal as refusal:
                    if refusal.reason not in ("not_logged_yet", "unavailable"):
                        raise
                    await asyncio.sleep(0.02)

    def ask_inclusion(self, run_id: str) -> Any:
        return self._receipts.GetInclusionProof(pb.GetInclusionProofRequest(run_id=run_id), metadata=self._who)

    def ask_consistency(self, old_size: int, new_size: int) -> Any:
        request = pb.GetConsistencyProofRequest(old_size=old_size, new_size=new_size)
        return self._receipts.GetConsistencyProof(request, metadata=self._who)

    async def logged(self, run_id: str) -> Checkpoint:
        """The checkpoint of the log that holds the run's receipt, everything verified."""
        receipt = await self.receipt(run_id)
        keys = await self.keys()
        verify_receipt(receipt, keys, run_id=run_id)
        async with asyncio.timeout(60):
            while True:
                try:
                    proof = await refusing(self.ask_inclusion(run_id))
                    break
                except Refusal as refusal:
                    if refusal.reason not in ("not_logged_yet", "unavailable"):  # a busy database is asked again
                        raise
                    await asyncio.sleep(refusal.retry_after_ms / 1000)
        checkpoint = verify_receipt_log(proof.checkpoint, keys.values())
        verify_logged(receipt, proof.leaf_index, list(proof.hashes), checkpoint)
        return checkpoint


async def test_every_receipt_gets_into_the_log_and_is_proved_there(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database, merge=QUICK), who.key) as runtime:
        auditor = Auditor(runtime, who)
        seen: Checkpoint | None = None
        for output in (b"one", b"two", b"three", b"four"):
            (run_id,) = await finished_runs(runtime, who, output)
            now = await auditor.logged(run_id)
            if seen is not None:
                proof = await refusing(auditor.ask_consistency(seen.size, now.size))
                check_growth(seen, now, list(proof.hashes))
            seen = now
        assert seen is not None
        assert seen.size == 4
        assert await auditor.checkpoint() == seen


async def test_a_receipt_that_is_not_merged_yet_says_so(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database, merge=NEVER), who.key) as runtime:
        auditor = Auditor(runtime, who)
        assert (await auditor.first_checkpoint()).size == 0, "the only look for a while is over"
        (run_id,) = await finished_runs(runtime, who, b"x")
        refusal = await refusal_of_call(auditor.ask_inclusion(run_id))
        assert (refusal.reason, refusal.field) == ("not_logged_yet", "run_id")
        assert refusal.retry_after_ms > 0


async def test_a_proof_is_for_the_org_of_the_run_only(runtime_database: Database) -> None:
    who = somebody()
    stranger = Somebody(who.key)
    async with replica(runtime_settings(runtime_database, merge=QUICK), who.key) as runtime:
        (run_id,) = await finished_runs(runtime, who, b"x")
        await Auditor(runtime, who).logged(run_id)
        for asker, asked in ((stranger, run_id), (who, NOBODYS_RUN)):
            refusal = await refusal_of_call(Auditor(runtime, asker).ask_inclusion(asked))
            assert refusal.reason == "not_found"
        running = await runtime.create(who, "still-running")
        refusal = await refusal_of_call(Auditor(runtime, who).ask_inclusion(running.run_id))
        assert refusal.reason == "run_not_finished"


@pytest.mark.parametrize(
    ("old_size", "new_size", "reason", "field"),
    [
        (0, 1, "missing_field", "old_size"),
        (1, 0, "missing_field", "new_size"),
        (2, 1, "invalid_value", "old_size"),
        (1, 3, "invalid_value", "new_size"),
        (1, 2**64 - 1, "invalid_value", "new_size"),
        (2**64 - 1, 2**64 - 1, "invalid_value", "new_size"),
    ],
)
async def test_sizes_that_no_log_has_are_refused(
    runtime_database: Database, old_size: int, new_size: int, reason: str, field: str
) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database, merge=QUICK), who.key) as runtime:
        run_ids = await finished_runs(runtime, who, b"x", b"y")
        auditor = Auditor(runtime, who)
        for run_id in run_ids:
            await auditor.logged(run_id)
        refusal = await refusal_of_call(auditor.ask_consistency(old_size, new_size))
        assert (refusal.reason, refusal.field) == (reason, field)
        assert list((await refusing(auditor.ask_consistency(2, 2))).hashes) == []


async def test_a_rotated_key_leaves_old_receipts_and_checkpoints_good(runtime_database: Database) -> None:
    who = somebody()
    settings = runtime_settings(runtime_database, merge=QUICK)
    async with replica(settings, who.key) as runtime:
        (old_run,) = await finished_runs(runtime, who, b"old")
        old = await Auditor(runtime, who).logged(old_run)
        old_keys = await Auditor(runtime, who).keys()
    rotated = replace(settings, receipt_key=Secret(receipt_pem()))
    async with replica(rotated, who.key) as runtime:
        auditor = Auditor(runtime, who)
        (new_run,) = await finished_runs(runtime, who, b"new")
        now = await auditor.logged(new_run)
        assert (await auditor.logged(old_run)).size == now.size == 2
        proof = await refusing(auditor.ask_consistency(old.size, now.size))
        check_growth(old, now, list(proof.hashes))
        assert set(old_keys) < set(await auditor.keys())
        verify_receipt(await auditor.receipt(old_run), old_keys, run_id=old_run)
        with pytest.raises(Refusal) as caught:
            verify_receipt(await auditor.receipt(new_run), old_keys, run_id=new_run)
        assert caught.value.reason == "unknown_key"


async def test_who_has_pinned_the_old_key_trusts_the_one_that_it_endorses(runtime_database: Database) -> None:
    who, old, new = somebody(), receipt_pem(), receipt_pem()
    settings = replace(runtime_settings(runtime_database, merge=QUICK), receipt_key=Secret(old))
    async with replica(settings, who.key) as runtime:
        pinned = await Auditor(runtime, who).keys()
    rotated = replace(settings, receipt_key=Secret(new))
    async with replica(rotated, who.key) as runtime:
        shown = await Auditor(runtime, who).shown_keys()
        assert len(shown) == 2
        assert endorsed(pinned, shown) == pinned
    for _ in range(2):  # every replica of the roll says the same
        async with replica(replace(rotated, previous_receipt_key=Secret(old)), who.key) as runtime:
            auditor = Auditor(runtime, who)
            trusted = endorsed(pinned, await auditor.shown_keys())
            assert len(trusted) == 2
    async with replica(rotated, who.key) as runtime:  # the old key is not needed any more
        auditor = Auditor(runtime, who)
        assert endorsed(pinned, await auditor.shown_keys()) == trusted
        (run_id,) = await finished_runs(runtime, who, b"x")
        verify_receipt(await auditor.receipt(run_id), trusted, run_id=run_id)


async def test_a_key_that_never_signed_here_endorses_nothing(runtime_database: Database) -> None:
    who = somebody()
    settings = runtime_settings(runtime_database)
    async with replica(settings, who.key) as runtime:
        before = await Auditor(runtime, who).shown_keys()
    strange = replace(settings, receipt_key=Secret(receipt_pem()), previous_receipt_key=Secret(receipt_pem()))
    with pytest.raises(Refusal) as caught:
        async with replica(strange, who.key):
            pass
    assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_PREVIOUS_RECEIPT_KEY")
    async with replica(settings, who.key) as runtime:
        assert await Auditor(runtime, who).shown_keys() == before
