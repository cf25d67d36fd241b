"""Chain, canonical JSON, receipts: deterministic, agreed on by another implementation, and broken by any change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import Append, AssignRun, Command, CreateRun
from oa_runlog.authority.decide import Accepted, decide
from oa_runlog.authority.limits import RunLimits
from oa_runlog.canonical import canonical_json
from oa_runlog.events import ExecSpec, Outcome, RunFinished, RunSpec, TextDelta, TextStream, ToolCall, Usage
from oa_runlog.fingerprint import fingerprint
from oa_runlog.partitions import partition_of
from oa_runlog.proof.chain import chain_next, chain_over, chain_start
from oa_runlog.proof.receipt import SignedReceipt, facts_of, read_facts
from oa_runlog.proof.signing import ReceiptSigner
from oa_runlog.proof.verify import verify_receipt, verify_record
from oa_runlog.state import MAX_TOTAL, RunState, Totals
from oa_runlog.state.reducer import replay
from oa_runlog.tests.values import ORG_ID, OTHER_RUN_ID, RUN_ID, USER_ID, WORKER_ID

NOW = 1_795_366_653_123_456_000
SIGNER = ReceiptSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEYS = {SIGNER.key_id: SIGNER.public_key}


def _record(run_id: str = RUN_ID) -> tuple[list[bytes], RunState]:
    """A run of six events."""
    commands: list[Command] = [
        CreateRun.of(run_id, ORG_ID, USER_ID, RunSpec("exec", ExecSpec(("ls",))), "k"),
        AssignRun(run_id, WORKER_ID),
        Append.of(run_id, ORG_ID, WORKER_ID, 1, "a", [TextDelta(TextStream.STDOUT, b"abc"), ToolCall("c", "t")]),
        Append.of(run_id, ORG_ID, WORKER_ID, 1, "b", [Usage("m", 10, 20, 30), RunFinished(Outcome.FAILED, "timeout")]),
    ]
    state, log = None, []
    for command in commands:
        decided = decide(state, command, RunLimits(), NOW)
        assert isinstance(decided, Accepted)
        state = decided.state
        log += [event.data for event in decided.events]
    assert state is not None
    return log, state


LOG, STATE = _record()
RECEIPT = SIGNER.sign(STATE, "log_1")


# ------------------------------------------------------------------------------------------------- chain, partitions


def test_the_chain_is_what_its_documentation_says() -> None:
    head = hashlib.sha256(b"openagents.run.v1:" + RUN_ID.encode()).digest()
    assert chain_start(RUN_ID) == head
    for event in LOG:
        head = hashlib.sha256(head + event).digest()
    assert chain_over(RUN_ID, LOG) == head == STATE.chain_head
    assert chain_over(OTHER_RUN_ID, LOG) != head


@given(st.lists(st.binary(max_size=8), max_size=6), st.binary(max_size=8))
def test_the_chain_can_be_computed_event_by_event(events: list[bytes], last: bytes) -> None:
    assert chain_next(chain_over(RUN_ID, events), last) == chain_over(RUN_ID, [*events, last])


@given(st.text(max_size=30), st.integers(1, 1024))
def test_a_partition_is_the_hash_of_the_id(key: str, partitions: int) -> None:
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert partition_of(key, partitions) == int(digest[:8], 16) % partitions


@given(st.lists(st.binary(max_size=4), max_size=5), st.lists(st.binary(max_size=4), max_size=5))
def test_fingerprints_are_equal_only_for_equal_lists(one: list[bytes], other: list[bytes]) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


# ------------------------------------------------------------------------------------------------- canonical JSON

_integers = st.integers(-MAX_TOTAL, MAX_TOTAL)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_canonical = st.recursive(
    st.none() | st.booleans() | _integers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)


@given(_canonical)
def test_canonical_json_is_what_another_implementation_makes(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1.5, MAX_TOTAL + 1, -MAX_TOTAL - 1, "\ud800", {"a": [2.0]}, object()])
def test_what_has_no_canonical_form_is_an_error(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- receipts


def test_a_receipt_states_what_the_run_was() -> None:
    facts = verify_record(RECEIPT, KEYS, LOG, run_id=RUN_ID)
    assert (facts.run_id, facts.org_id, facts.user_id) == (RUN_ID, ORG_ID, USER_ID)
    assert (facts.first_seq, facts.last_seq, facts.count, facts.attempts) == (1, 6, 6, 1)
    assert (facts.outcome, facts.finish_reason, facts.log_epoch) == (Outcome.FAILED, "timeout", "log_1")
    assert facts.totals == Totals(text_bytes=3, tool_calls=1, input_tokens=10, output_tokens=20, cached_input_tokens=30)
    assert facts.create_time == "2026-11-22T16:57:33.123456000Z"
    assert read_facts(RECEIPT.canonical_json) == facts == facts_of(STATE, "log_1", SIGNER.key_id)


def test_the_same_run_gives_the_same_receipt() -> None:
    assert SIGNER.sign(STATE, "log_1") == RECEIPT
    assert RECEIPT.canonical_json == rfc8785.dumps(json.loads(RECEIPT.canonical_json))


def test_totals_stop_where_json_does() -> None:
    full = Totals(text_bytes=MAX_TOTAL - 1).plus(text_bytes=2**64 - 1)
    assert full.text_bytes == MAX_TOTAL
    canonical_json({"n": full.text_bytes})


def test_a_run_that_has_not_ended_gets_no_receipt() -> None:
    unfinished = replay(LOG[:-1])
    assert unfinished is not None
    with pytest.raises(ValueError):
        SIGNER.sign(unfinished, "log_1")


# ------------------------------------------------------------------------------------------------- tampering

OTHER_LOG, OTHER_STATE = _record(OTHER_RUN_ID)
MALLORY = ReceiptSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
Record = tuple[SignedReceipt, list[bytes]]


def _resigned(change: Callable[[dict[str, object]], object]) -> SignedReceipt:
    """The authority's own signature under other members: what only a dishonest authority could make."""
    members = json.loads(RECEIPT.canonical_json)
    change(members)
    data = rfc8785.dumps(members)
    signature = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(data)
    return SignedReceipt(str(members["run_id"]), data, signature, SIGNER.key_id)


def _flipped(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


TAMPERED: dict[str, tuple[Record, str]] = {
    "a changed byte of text": ((RECEIPT, [*LOG[:2], LOG[2].replace(b"abc", b"abd"), *LOG[3:]]), "chain_mismatch"),
    "an event that can't be read": ((RECEIPT, [LOG[0], b"\xff", *LOG[2:]]), "chain_mismatch"),
    "another run's events": ((RECEIPT, OTHER_LOG), "receipt_foreign"),
    "another run's receipt": ((SIGNER.sign(OTHER_STATE, "log_1"), LOG), "receipt_foreign"),
    "a receipt under another name": ((replace(RECEIPT, run_id=OTHER_RUN_ID), LOG), "receipt_foreign"),
    "another key": ((MALLORY.sign(STATE, "log_1"), LOG), "unknown_key"),
    "another key's signature": (
        (replace(RECEIPT, signature=MALLORY.sign(STATE, "log_1").signature), LOG), "signature_invalid",
    ),
    "a changed receipt": (
        (replace(RECEIPT, canonical_json=_flipped(RECEIPT.canonical_json, 9)), LOG), "signature_invalid",
    ),
    "a changed signature": ((replace(RECEIPT, signature=_flipped(RECEIPT.signature, 5)), LOG), "signature_invalid"),
    "a signed outcome that is not the log's": (
        (_resigned(lambda m: m.update(outcome="succeeded")), LOG), "outcome_mismatch",
    ),
    "signed totals that are not the log's": (
        (_resigned(lambda m: m.update(totals={**m["totals"], "input_tokens": 1})), LOG), "outcome_mismatch",  # type: ignore[dict-item]
    ),
    "a signed chain head that is not the log's": (
        (_resigned(lambda m: m.update(chain_head="00" * 32)), LOG), "chain_mismatch",
    ),
    "a signed text that is no receipt": ((_resigned(lambda m: m.pop("user_id")), LOG), "signature_invalid"),
}  # fmt: skip


@pytest.mark.parametrize(("record", "reason"), TAMPERED.values(), ids=TAMPERED.keys())
def test_tampering_is_refused_with_its_own_reason(record: Record, reason: str) -> None:
    receipt, events = record
    with pytest.raises(Refusal) as caught:
        verify_record(receipt, KEYS, events, run_id=RUN_ID)
    assert caught.value.reason == reason


@given(st.data())
def test_no_changed_bit_of_the_record_goes_unseen(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(LOG) - 1))
    index = data.draw(st.integers(0, len(LOG[number]) - 1))
    with pytest.raises(Refusal):
        verify_record(RECEIPT, KEYS, [*LOG[:number], _flipped(LOG[number], index), *LOG[number + 1 :]])


@given(st.integers(0, len(RECEIPT.canonical_json) - 1))
def test_no_changed_bit_of_the_receipt_goes_unseen(index: int) -> None:
    with pytest.raises(Refusal) as caught:
        verify_receipt(replace(RECEIPT, canonical_json=_flipped(RECEIPT.canonical_json, index)), KEYS)
    assert caught.value.reason == "signature_invalid"
