"""Checkpoints: a published vector, round trips, what must not be taken for one, and what a log may not do."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog.proof.checkpoint import (
    MAX_LOG_SIZE,
    Checkpoint,
    check_growth,
    parse_checkpoint,
    receipt_leaf,
    verify_checkpoint,
    verify_logged,
)
from oa_runlog.proof.merkle import (
    EMPTY_ROOT,
    Frontier,
    Node,
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    inclusion_proof,
)
from oa_runlog.proof.signing import NoteSigner, sign_checkpoint, sign_note
from oa_runlog.tests.records import MALLORY, record, text

LOG = NoteSigner("example.com/receipts", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
WITNESS = NoteSigner("witness.example.com", Ed25519PrivateKey.from_private_bytes(bytes(32)))
# The example of c2sp.org/tlog-checkpoint.
C2SP_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def test_the_published_checkpoint_is_read_and_written_the_same() -> None:
    checkpoint = parse_checkpoint(C2SP_TEXT)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text == C2SP_TEXT


_lines = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=20)


@given(st.integers(1, MAX_LOG_SIZE), st.binary(min_size=32, max_size=32), st.lists(_lines.filter(bool), max_size=2))
def test_every_checkpoint_survives(size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint("example.com/receipts", size, root, tuple(extensions))
    assert parse_checkpoint(checkpoint.text) == checkpoint
    assert verify_checkpoint(sign_note(checkpoint.text, [WITNESS, LOG]), LOG.verifier_key) == checkpoint


@given(st.data())
def test_no_changed_bit_of_a_checkpoint_goes_unseen(data: st.DataObject) -> None:
    note = bytearray(sign_checkpoint(0, EMPTY_ROOT, LOG))
    note[data.draw(st.integers(0, len(note) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Refusal):
        verify_checkpoint(bytes(note), LOG.verifier_key)


ROOT = base64.b64encode(EMPTY_ROOT).decode()


@pytest.mark.parametrize(
    "whole",
    [
        "o\n0\n",
        f"o\n0\n{ROOT}",
        f"\n0\n{ROOT}\n",
        f"o\n00\n{ROOT}\n",
        f"o\n01\n{ROOT}\n",
        f"o\n-1\n{ROOT}\n",
        f"o\n+1\n{ROOT}\n",
        f"o\n١\n{ROOT}\n",
        f"o\n{MAX_LOG_SIZE + 1}\n{ROOT}\n",
        "o\n1\nAAAA\n",
        f"o\n1\n{ROOT}=\n",
        f"o\n1\n{ROOT[:-2]}V=\n",
        f"o\n1\n{ROOT}\n\n",
        f"o\n1\n{ROOT}\nx\n\n",
        f"o\n0\n{base64.b64encode(bytes(32)).decode()}\n",
    ],
)
def test_what_is_no_checkpoint_is_malformed(whole: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_checkpoint(whole)
    assert caught.value.reason == "checkpoint_malformed"


def test_a_checkpoint_of_another_log_under_our_key_is_refused() -> None:
    note = sign_note(Checkpoint("example.com/others", 0, EMPTY_ROOT).text, [LOG])
    with pytest.raises(Refusal) as caught:
        verify_checkpoint(note, LOG.verifier_key)
    assert caught.value.reason == "checkpoint_malformed"


# ------------------------------------------------------------------------------------------------- the log of receipts

RUNS = [record([text(b"%d" % number)]) for number in range(7)]
MALLORYS = record([text(b"x")], signer=MALLORY)


class ReceiptLog:
    """The log of some receipts, with its signed checkpoints."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.nodes: dict[Node, bytes] = {}
        frontier = Frontier()
        self.checkpoints = [sign_checkpoint(0, frontier.root, LOG)]
        for leaf in leaves:
            frontier, made = frontier.append(leaf)
            self.nodes.update(made)
            self.checkpoints.append(sign_checkpoint(frontier.size, frontier.root, LOG))

    def at(self, size: int) -> Checkpoint:
        """The verified checkpoint of a size."""
        return verify_checkpoint(self.checkpoints[size], LOG.verifier_key)

    def growth(self, old: int, new: int) -> list[bytes]:
        """The consistency proof."""
        return consistency_proof(old, new, {node: self.nodes[node] for node in consistency_nodes(old, new)})

    def proof(self, index: int, size: int) -> list[bytes]:
        """The inclusion proof."""
        return inclusion_proof(index, size, {node: self.nodes[node] for node in inclusion_nodes(index, size)})


HONEST = ReceiptLog([receipt_leaf(run.receipt) for run in RUNS])
# The same log with receipt 2 taken away, and one in which it was signed anew over something else.
TAKEN_AWAY = ReceiptLog([receipt_leaf(run.receipt) for number, run in enumerate(RUNS) if number != 2])
SIGNED_ANEW = ReceiptLog(
    [receipt_leaf(record([text(b"anew")]).receipt if number == 2 else run.receipt) for number, run in enumerate(RUNS)]
)


def growth_reason(seen: Checkpoint, now: Checkpoint, proof: list[bytes]) -> str:
    """Why the log is not what it was."""
    with pytest.raises(Refusal) as caught:
        check_growth(seen, now, proof)
    return caught.value.reason


def test_every_receipt_is_shown_to_be_in_the_log() -> None:
    for index, run in enumerate(RUNS):
        for size in range(index + 1, len(RUNS) + 1):
            verify_logged(run.receipt, index, HONEST.proof(index, size), HONEST.at(size))


def test_a_log_that_only_grew_is_taken() -> None:
    for old in range(1, len(RUNS) + 1):
        for new in range(old, len(RUNS) + 1):
            check_growth(HONEST.at(old), HONEST.at(new), HONEST.growth(old, new))


def test_a_receipt_that_was_signed_anew_is_not_in_the_log() -> None:
    """Even with the authority's own key: the log shows what was signed first."""
    anew = record([text(b"anew")]).receipt
    for receipt in (anew, MALLORYS.receipt, RUNS[3].receipt, replace(RUNS[2].receipt, canonical_json=b"{}")):
        with pytest.raises(Refusal) as caught:
            verify_logged(receipt, 2, HONEST.proof(2, 7), HONEST.at(7))
        assert caught.value.reason == "not_in_log"


def test_a_log_that_was_rolled_back_is_seen() -> None:
    assert growth_reason(HONEST.at(7), HONEST.at(6), []) == "log_rolled_back"
    assert growth_reason(HONEST.at(7), TAKEN_AWAY.at(6), []) == "log_rolled_back"


@pytest.mark.parametrize("forked", [TAKEN_AWAY, SIGNED_ANEW])
def test_a_log_whose_past_was_changed_is_seen(forked: ReceiptLog) -> None:
    size = len(forked.checkpoints) - 1
    for old in range(3, size + 1):
        assert growth_reason(HONEST.at(old), forked.at(size), forked.growth(old, size)) == "log_forked"
    check_growth(HONEST.at(2), forked.at(size), forked.growth(2, size))


def test_another_log_is_no_continuation() -> None:
    other = replace(HONEST.at(7), origin="example.com/others")
    assert growth_reason(HONEST.at(7), other, []) == "log_forked"
