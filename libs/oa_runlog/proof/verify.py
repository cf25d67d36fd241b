"""Checking receipts, records and replay artifacts offline, with nothing but them and pinned public keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.events import RunEvent
from oa_runlog.proof.chain import chain_over
from oa_runlog.proof.ed25519 import signature_fits
from oa_runlog.proof.outcome import finished, next_state
from oa_runlog.proof.receipt import ReceiptFacts, SignedReceipt, read_facts
from oa_runlog.proof.replay import ReplayReader
from oa_runlog.proof.sequence import in_sequence
from oa_runlog.state import RunState

Keys = Mapping[str, bytes]
"""Pinned keys: key id -> 32 bytes of Ed25519 public key."""


def verify_receipt(receipt: SignedReceipt, keys: Keys, *, run_id: str | None = None) -> ReceiptFacts:
    """Check that a pinned key signed the receipt and that it belongs to `run_id` (if given). Returns what it states.

    Raises Refusal: `unknown_key`, `signature_invalid`, `receipt_foreign`.
    """
    public_key = keys.get(receipt.key_id)
    if public_key is None:
        text = (
            f"the receipt is signed with {receipt.key_id}, which is neither pinned nor endorsed by a pinned key; "
            "pin it if the installation says that it is its own"
        )
        raise Refusal("unknown_key", text, field="key_id")
    if not signature_fits(public_key, receipt.signature, receipt.canonical_json):
        raise Refusal("signature_invalid", "the signature does not fit the receipt and its key", field="signature")
    try:
        facts = read_facts(receipt.canonical_json)
    except ValueError as error:
        raise Refusal("signature_invalid", f"what is signed is no receipt: {error}", field="canonical_json") from None
    if facts.kid != receipt.key_id:
        raise Refusal("signature_invalid", "the receipt names another key than it is signed with", field="key_id")
    if facts.run_id != receipt.run_id or (run_id is not None and facts.run_id != run_id):
        raise Refusal("receipt_foreign", f"the receipt is that of {facts.run_id}", field="run_id")
    return facts


def verify_record(
    receipt: SignedReceipt, keys: Keys, events: Iterable[bytes], *, run_id: str | None = None
) -> ReceiptFacts:
    """Check that the receipt was made of `events` (all of the run, as stored). Returns what the receipt states.

    Raises Refusal: as `verify_receipt`; for the order of the events `event_missing`, `event_doubled`,
    `event_misplaced`, `tail_cut`, `sequence_broken`; `chain_mismatch`; `outcome_mismatch`.
    """
    facts = verify_receipt(receipt, keys, run_id=run_id)
    data = list(events)
    read = [_read(number, event, facts.run_id) for number, event in enumerate(data, start=1)]
    _check_sequence(read, facts)
    _check_chain(data, facts)
    state = _replay(read, data)
    finished(state, facts)
    return facts


def _read(number: int, data: bytes, run_id: str) -> RunEvent:
    try:
        event = wire.decode_event(data)
    except Refusal as refusal:
        text = f"event {number} can't be read: {refusal.message}"
        raise Refusal("chain_mismatch", text, metadata={"seq": str(number)}) from None
    if event.run_id != run_id:
        raise Refusal("receipt_foreign", f"event {number} belongs to another run", metadata={"seq": str(number)})
    return event


def _check_sequence(events: list[RunEvent], facts: ReceiptFacts) -> None:
    for _ in in_sequence(events, lambda event: event.seq, facts.count):
        pass
    if (facts.first_seq, facts.last_seq) != (1, facts.count):
        text = f"the receipt counts {facts.count} events, from {facts.first_seq} to {facts.last_seq}"
        raise Refusal("sequence_broken", text)


def _check_chain(data: list[bytes], facts: ReceiptFacts) -> None:
    if chain_over(facts.run_id, data).hex() != facts.chain_head:
        raise Refusal("chain_mismatch", "the events do not give the receipt's chain head: a byte was changed")


def _replay(events: list[RunEvent], data: list[bytes]) -> RunState | None:
    state: RunState | None = None
    for event, stored in zip(events, data, strict=True):
        state = next_state(state, event, stored)
    return state


# ------------------------------------------------------------------------------------------------- artifacts


@dataclass(frozen=True, slots=True)
class VerifiedReplay:
    """What an artifact proves: its receipt, the facts that it states, and the state that the events lead to."""

    receipt: SignedReceipt
    facts: ReceiptFacts
    state: RunState


def verify_artifact(lines: Iterable[bytes], keys: Keys, *, run_id: str | None = None) -> VerifiedReplay:
    """Check an artifact against pinned keys, and that it is the artifact of `run_id` (if given).

    Raises Refusal: `artifact_malformed`; for the order of the events `event_missing`, `event_doubled`,
    `event_misplaced`, `tail_cut`, `sequence_broken`; `chain_mismatch`; for the receipt `unknown_key`,
    `signature_invalid`, `receipt_foreign`; `outcome_mismatch`.
    """
    reader = ReplayReader(lines)
    state: RunState | None = None
    for one in reader.events():
        state = next_state(state, one.event, one.data)
    receipt = reader.receipt()
    facts = verify_receipt(receipt, keys, run_id=reader.run_id)
    if run_id is not None and run_id != reader.run_id:
        raise Refusal("receipt_foreign", f"this is the run {reader.run_id}", field="run_id")
    reader.check_count(facts.count)
    if reader.chain.hex() != facts.chain_head:
        raise Refusal("chain_mismatch", "the events do not give the receipt's chain head")
    return VerifiedReplay(receipt, facts, finished(state, facts))
