"""What proves a run: each way to it, from a site that is honest and from one that is not."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

import pytest

from oa_base.refusal import Refusal
from oa_client.core.models import ArtifactPiece, InclusionProof
from oa_client.core.store import MemoryStore
from oa_client.follow.tests.fake_gateway import FakeGateway, Topic
from oa_client.follow.tests.subscribing import Subscribing
from oa_client.proofs.receipt_log import LogProofs
from oa_client.proofs.run_proofs import Proved, RunProofs
from oa_client.proofs.tests.signed_log import Kept, Log
from oa_khala.client.commands import Apply
from oa_khala.frames import Cursor
from oa_khala.topics import run_events
from oa_runlog.proof.keys import ReceiptKey
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.replay import artifact_lines
from oa_runlog.proof.verify import verify_receipt
from oa_runlog.tests.records import KEYS, MALLORY, Record, record, text

RUN = record([text(b"one\n"), text(b"two\n")])
ANOTHER_PAST = record([text(b"one\n"), text(b"three\n")])
TOPIC = run_events(RUN.run_id)
FOREIGN_KEYS = {MALLORY.key_id: MALLORY.public_key}
PROVED = Proved(RUN.receipt, verify_receipt(RUN.receipt, KEYS))
NO_GATEWAY = Subscribing("ws://127.0.0.1:9/")


class Pins:
    """A PinStore in memory."""

    def __init__(self, keys: Mapping[str, bytes] = KEYS) -> None:
        self.keys = dict(keys)

    def load(self) -> dict[str, bytes]:
        return dict(self.keys)

    def save(self, keys: Mapping[str, bytes]) -> None:
        self.keys = dict(keys)


class Site:
    """Has one run: its receipt, its artifact, and a log of receipts that it is in."""

    def __init__(self, run: Record = RUN, keys: Mapping[str, bytes] = KEYS) -> None:
        self.run = run
        self.keys = dict(keys)
        self.unfinished = False
        self._log: LogProofs = Log([run])
        self._artifact = b"".join(artifact_lines(run.receipt, run.events))

    async def receipt(self, run_id: str) -> SignedReceipt:
        if self.unfinished:
            raise Refusal("run_not_finished", "it goes on")
        return self.run.receipt

    async def receipt_keys(self) -> list[ReceiptKey]:
        return [ReceiptKey(key) for key in self.keys.values()]

    async def inclusion_proof(self, run_id: str) -> InclusionProof:
        return await self._log.inclusion_proof(run_id)

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        return await self._log.consistency_proof(old_size, new_size)

    async def artifact_piece(self, run_id: str, offset: int) -> ArtifactPiece:
        digest = hashlib.sha256(self._artifact).digest()
        return ArtifactPiece(self._artifact[offset : offset + 500], len(self._artifact), digest)


class Scratch:
    """Counts the files that were asked for, and those that are open."""

    def __init__(self) -> None:
        self.asked = self.open = 0

    @contextmanager
    def __call__(self) -> Iterator[BinaryIO]:
        self.asked += 1
        self.open += 1
        try:
            yield io.BytesIO()
        finally:
            self.open -= 1


def proofs(
    site: Site, pins: Pins | None = None, *, kept: Kept | None = None, via: Subscribing = NO_GATEWAY
) -> RunProofs:
    return RunProofs(site, via, pins or Pins(), kept or Kept())


def holding(events: list[bytes]) -> MemoryStore:
    store = MemoryStore()
    store.apply([Apply(TOPIC, Cursor("epoch-1", seq), data, 1) for seq, data in enumerate(events, start=1)])
    return store


async def test_keys_are_pinned_on_first_use_and_a_site_with_others_is_another_one() -> None:
    pins = Pins({})
    assert await proofs(Site(), pins).keys() == KEYS == pins.keys
    with pytest.raises(Refusal) as caught:
        await proofs(Site(keys=FOREIGN_KEYS), pins).keys()
    assert (caught.value.reason, pins.keys) == ("unknown_key", KEYS)


async def test_a_site_that_is_trusted_anew_is_trusted_for_its_log_too() -> None:
    pins, kept = Pins(), Kept()
    kept.note = b"seen"
    assert await proofs(Site(keys=FOREIGN_KEYS), pins, kept=kept).trust_anew() == FOREIGN_KEYS == pins.keys
    assert kept.note is None


async def test_a_receipt_is_checked_with_the_pinned_keys() -> None:
    assert await proofs(Site()).receipt(RUN.run_id) == PROVED
    forged = replace(RUN.receipt, signature=bytes(64))
    with pytest.raises(Refusal) as caught:
        await proofs(Site(replace(RUN, receipt=forged))).receipt(RUN.run_id)
    assert caught.value.reason == "signature_invalid"


async def test_a_receipt_of_another_run_proves_nothing_of_this_one() -> None:
    other = record([text(b"x")], "run_01JD8V0000000000000000000B")
    for proving in (proofs(Site(other)).receipt(RUN.run_id), proofs(Site(other)).record(RUN.run_id, MemoryStore())):
        with pytest.raises(Refusal) as caught:
            await proving
        assert caught.value.reason == "receipt_foreign"


@pytest.mark.parametrize(
    ("events", "reason"),
    [(RUN.events, ""), (RUN.events[:-1], "tail_cut"), ([], "tail_cut"), (ANOTHER_PAST.events, "chain_mismatch")],
    ids=["whole", "cut", "nothing", "another past"],
)
async def test_a_record_is_every_event_that_is_stored(events: list[bytes], reason: str) -> None:
    if not reason:
        assert await proofs(Site()).record(RUN.run_id, holding(events)) == PROVED
        return
    with pytest.raises(Refusal) as caught:
        await proofs(Site()).record(RUN.run_id, holding(events))
    assert caught.value.reason == reason


@pytest.mark.parametrize("count", [0, 2, len(RUN.events)])
async def test_what_is_missing_here_is_followed_first(count: int) -> None:
    store, scratch = holding(RUN.events[:count]), Scratch()
    async with FakeGateway({TOPIC: Topic(RUN.events)}).running() as served:
        site = proofs(Site(), via=Subscribing(served.url))
        assert await site.whole_record(RUN.run_id, store, scratch) == PROVED
    assert [element.payload for element in store.elements(TOPIC)] == RUN.events
    assert scratch.asked == 0


async def test_a_run_that_goes_on_is_not_waited_for() -> None:
    site, via = Site(), Subscribing("ws://127.0.0.1:9/")
    site.unfinished = True
    asked = proofs(site, via=via)
    for proving in (
        asked.followed_record(RUN.run_id, MemoryStore()),
        asked.whole_record(RUN.run_id, MemoryStore(), Scratch()),
    ):
        with pytest.raises(Refusal) as caught:
            await proving
        assert caught.value.reason == "run_not_finished"
    assert via.batches == []


async def test_a_run_in_the_archive_is_proved_by_its_artifact() -> None:
    scratch = Scratch()
    async with FakeGateway({TOPIC: Topic(RUN.events, floor=len(RUN.events))}).running() as served:
        via = Subscribing(served.url)
        assert await proofs(Site(), via=via).whole_record(RUN.run_id, MemoryStore(), scratch) == PROVED
        with pytest.raises(Refusal) as caught:
            await proofs(Site(keys=FOREIGN_KEYS), via=via).whole_record(RUN.run_id, MemoryStore(), scratch)
    assert caught.value.reason == "unknown_key"
    assert (scratch.asked, scratch.open) == (2, 0)


async def test_an_artifact_is_checked_with_the_pinned_keys_and_for_the_run_that_was_asked_for() -> None:
    into = io.BytesIO()
    checked = await proofs(Site()).artifact(RUN.run_id, into)
    assert (checked.size_bytes, checked.replay.receipt) == (len(into.getvalue()), RUN.receipt)
    with pytest.raises(Refusal) as caught:
        await proofs(Site()).artifact("run_01JD8V0000000000000000000B", io.BytesIO())
    assert caught.value.reason == "receipt_foreign"


async def test_a_receipt_is_looked_for_in_the_log_that_was_seen() -> None:
    kept = Kept()
    logged = await proofs(Site(), kept=kept).logged(PROVED)
    assert (logged.leaf_index, logged.now.size, logged.seen) == (0, 1, None)
    assert kept.note is not None
    rewritten = proofs(Site(ANOTHER_PAST), kept=kept)
    with pytest.raises(Refusal) as caught:
        await rewritten.logged(await rewritten.receipt(RUN.run_id))
    assert caught.value.reason == "log_forked"
