"""The log of receipts, watched: what is kept, what is asked, and what each lie is refused with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_client.core.models import InclusionProof
from oa_client.proofs.receipt_log import check_logged
from oa_client.proofs.tests.signed_log import Kept, Log
from oa_runlog.proof.checkpoint import log_origin
from oa_runlog.proof.receipt import ReceiptFacts, SignedReceipt
from oa_runlog.proof.signing import NoteSigner
from oa_runlog.proof.verify import verify_receipt
from oa_runlog.tests.records import KEY, KEYS, MALLORY, Record, record, text

RUNS = [record([text(bytes([number]))], f"run_01JD8V0000000000000000000{number}") for number in range(9)]


def facts_of(receipt: SignedReceipt) -> ReceiptFacts:
    return verify_receipt(receipt, KEYS)


async def check(log: Log, kept: Kept, run: Record) -> tuple[int, int, int]:
    """Leaf, size now, size seen before (0: none)."""
    logged = await check_logged(log, kept, KEYS, run.receipt, facts_of(run.receipt))
    return logged.leaf_index, logged.now.size, logged.seen.size if logged.seen else 0


async def refused(log: Log, kept: Kept, run: Record) -> str:
    before = kept.note
    with pytest.raises(Refusal) as caught:
        await check_logged(log, kept, KEYS, run.receipt, facts_of(run.receipt))
    assert kept.note == before, "what is refused must not be kept"
    return caught.value.reason


async def test_a_growing_log_is_followed_and_its_newest_checkpoint_kept() -> None:
    kept = Kept()
    assert await check(Log(RUNS[:3]), kept, RUNS[1]) == (1, 3, 0)
    grown = Log(RUNS)
    assert await check(grown, kept, RUNS[8]) == (8, 9, 3)
    assert await check(grown, kept, RUNS[0]) == (0, 9, 9)
    assert grown.asked == [(3, 9)], "a proof is asked for only when there is growth to prove"


class Overtaken(Log):
    """A log that gives its proof to one process. Before that one goes on, another process checks the log `other`."""

    def __init__(self, runs: list[Record], kept: Kept, other: Log) -> None:
        super().__init__(runs)
        self._kept = kept
        self._other = other

    async def inclusion_proof(self, run_id: str) -> InclusionProof:
        proof = await super().inclusion_proof(run_id)
        await check(self._other, self._kept, RUNS[0])
        return proof

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        if new_size > self._frontier.size:
            return await self._other.consistency_proof(old_size, new_size)
        return await super().consistency_proof(old_size, new_size)


async def test_a_newer_checkpoint_that_was_kept_meanwhile_is_no_rollback_and_stays() -> None:
    """By another process, after the site had given its proof to this one."""
    kept, grown = Kept(), Log(RUNS)
    assert await check(Overtaken(RUNS[:3], kept, grown), kept, RUNS[1]) == (1, 3, 0)
    assert grown.asked == [(3, 9)], "the two were compared"
    assert await check(grown, kept, RUNS[0]) == (0, 9, 9)


async def test_an_older_checkpoint_that_was_kept_meanwhile_gives_way() -> None:
    kept = Kept()
    assert await check(Overtaken(RUNS, kept, Log(RUNS[:3])), kept, RUNS[1]) == (1, 9, 0)
    assert await check(Log(RUNS), kept, RUNS[0]) == (0, 9, 9)


@pytest.mark.parametrize("size", [4, 6, 9])
async def test_a_fork_that_another_process_was_shown_meanwhile_is_found(size: int) -> None:
    """Both logs continue what was seen before, so neither process finds it alone."""
    kept = Kept()
    await check(Log(RUNS[:3]), kept, RUNS[0])
    rewritten = record([text(b"another past")], RUNS[3].run_id)
    other = Log([*RUNS[:3], rewritten, *RUNS[4:size]])
    with pytest.raises(Refusal) as caught:
        await check(Overtaken(RUNS[:6], kept, other), kept, RUNS[1])
    assert caught.value.reason == "log_forked"
    assert kept.note == (await other.inclusion_proof(RUNS[0].run_id)).checkpoint, "what is refused must not be kept"


async def test_a_log_that_was_rolled_back_is_refused() -> None:
    kept = Kept()
    await check(Log(RUNS), kept, RUNS[0])
    assert await refused(Log(RUNS[:4]), kept, RUNS[0]) == "log_rolled_back"


async def test_a_log_whose_past_was_rewritten_is_refused() -> None:
    """A receipt was signed anew, over another past, and the log made again with it."""
    kept = Kept()
    await check(Log(RUNS[:3]), kept, RUNS[0])
    rewritten = record([text(b"another past")], RUNS[1].run_id)
    for size in (3, 5):
        assert await refused(Log([RUNS[0], rewritten, *RUNS[2:size]]), kept, RUNS[2]) == "log_forked"


async def test_another_log_is_refused_until_the_site_is_trusted_anew() -> None:
    kept = Kept()
    other = Log(RUNS[:5], NoteSigner(log_origin("log_2"), KEY))
    restored = [replace(facts_of(run.receipt), log_epoch="log_2") for run in RUNS]
    await check(Log(RUNS[:3]), kept, RUNS[0])
    with pytest.raises(Refusal) as caught:
        await check_logged(other, kept, KEYS, RUNS[0].receipt, restored[0])
    assert caught.value.reason == "log_forked"
    kept.forget()
    assert (await check_logged(other, kept, KEYS, RUNS[0].receipt, restored[0])).now.size == 5


async def test_a_receipt_that_was_replaced_is_not_in_the_log() -> None:
    """The authority shows the receipt of another past, and still has the old one in its log."""
    replaced = record([text(b"another past")], RUNS[1].run_id)
    assert await refused(Log(RUNS), Kept(), replaced) == "not_in_log"


async def test_a_checkpoint_must_be_signed_by_a_pinned_key() -> None:
    mallory = NoteSigner(log_origin("log_1"), MALLORY._key)
    assert await refused(Log(RUNS, mallory), Kept(), RUNS[0]) == "unknown_key"
    no_log = NoteSigner("example.org/receipts", KEY)
    assert await refused(Log(RUNS, no_log), Kept(), RUNS[0]) == "checkpoint_malformed"


async def test_receipts_of_another_epoch_are_in_the_same_log() -> None:
    """The log of events got a new epoch; its log of receipts has the name that it had."""
    kept = Kept()
    for run in RUNS[:2]:
        facts = replace(facts_of(run.receipt), log_epoch="log_2")
        assert (await check_logged(Log(RUNS), kept, KEYS, run.receipt, facts)).now.size == len(RUNS)


async def test_a_kept_checkpoint_that_was_broken_is_told() -> None:
    kept = Kept()
    kept.note = b"nonsense"
    assert await refused(Log(RUNS), kept, RUNS[0]) == "checkpoint_malformed"
