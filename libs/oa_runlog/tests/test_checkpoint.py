"""Checkpoints: published vectors, round trips, and everything that must not be taken for one."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from oa_errors import Refusal
from oa_runlog.proof.checkpoint import (
    MAX_LOG_SIZE,
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Checkpoint,
    NoteSigner,
    VerifierKey,
    check_growth,
    open_note,
    parse_checkpoint,
    receipt_leaf,
    sign_checkpoint,
    sign_note,
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
from oa_runlog.tests.records import MALLORY, record, text

LOG = NoteSigner("example.com/receipts", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
WITNESS = NoteSigner("witness.example.com", Ed25519PrivateKey.from_private_bytes(bytes(32)))
# The example of Go's package golang.org/x/mod/sumdb/note.
NEUMANN = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
NEUMANN_PRIVATE = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
NEUMANN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\N{EM DASH} PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
# The example of c2sp.org/tlog-checkpoint.
C2SP_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def reason_of(note: bytes, *keys: VerifierKey) -> str:
    """Why a note is not opened."""
    with pytest.raises(Refusal) as caught:
        open_note(note, keys)
    return caught.value.reason


# ------------------------------------------------------------------------------------------------- signed notes


def test_the_published_note_opens_and_is_signed_the_same() -> None:
    opened, keys = open_note(NEUMANN_NOTE, [NEUMANN])
    assert opened.startswith("If you think")
    assert keys == (NEUMANN,)
    signer = NoteSigner("PeterNeumann", Ed25519PrivateKey.from_private_bytes(NEUMANN_PRIVATE))
    assert signer.verifier_key == NEUMANN
    assert sign_note(opened, [signer]) == NEUMANN_NOTE


def test_the_published_checkpoint_is_read_and_written_the_same() -> None:
    checkpoint = parse_checkpoint(C2SP_TEXT)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text == C2SP_TEXT


_lines = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=20)


@given(st.lists(_lines, min_size=1, max_size=5))
def test_every_text_of_whole_lines_survives(lines: list[str]) -> None:
    whole = "".join(f"{line}\n" for line in lines)
    note = sign_note(whole, [LOG, WITNESS])
    assert open_note(note, [LOG.verifier_key])[0] == whole
    assert open_note(note, [WITNESS.verifier_key, LOG.verifier_key])[1] == (LOG.verifier_key, WITNESS.verifier_key)


@pytest.mark.parametrize("whole", ["", "no end", "a\tb\n", "a\0\n", "a\r\n"])
def test_what_is_no_text_is_not_signed(whole: str) -> None:
    with pytest.raises(ValueError, match="whole lines"):
        sign_note(whole, [LOG])


def test_a_note_without_signatures_is_not_made() -> None:
    with pytest.raises(ValueError, match="at least one"):
        sign_note("a\n", [])


NOTE = sign_note("a\nb\n", [LOG])
SIGNATURE = NOTE.decode().splitlines()[-1]


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"a\n",
        b"a\nb\n\n",
        NOTE[:-1],
        NOTE.replace(b"\n\n", b"\n"),
        NOTE + b"\n",
        NOTE + b"rubbish\n",
        NOTE.replace("\N{EM DASH}".encode(), b"-"),
        NOTE.replace(b"a\nb", b"a\xff\nb"),
        NOTE.replace(b"a\nb", b"a\x01\nb"),
        "a\n\n\N{EM DASH} name+plus AAAAAAA=\n".encode(),
        "a\n\n\N{EM DASH} name AAAAAA==\n".encode(),
        "a\n\n\N{EM DASH} name AAAAAAB=\n".encode(),
        "a\n\n\N{EM DASH} name\n".encode(),
        ("a\n\n" + f"{SIGNATURE}\n" * (MAX_SIGNATURES + 1)).encode(),
        b"a\n" * (MAX_NOTE_BYTES // 2) + NOTE,
    ],
)
def test_what_is_no_note_is_malformed(note: bytes) -> None:
    assert reason_of(note, LOG.verifier_key) == "checkpoint_malformed"


def test_a_note_is_signed_by_the_keys_that_signed_it() -> None:
    assert reason_of(NOTE, WITNESS.verifier_key) == "unknown_key"
    assert reason_of(NOTE) == "unknown_key"
    assert reason_of(NOTE.replace(b"a\n", b"c\n"), LOG.verifier_key) == "signature_invalid"
    same_name = NoteSigner(LOG.verifier_key.name, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert reason_of(sign_note("a\nb\n", [same_name]), LOG.verifier_key) == "unknown_key"
    # Mallory puts the log's name and key id before a signature of their own.
    forged = base64.b64encode(LOG.verifier_key.key_id + bytes(64)).decode()
    note = f"a\nb\n\n\N{EM DASH} {LOG.verifier_key.name} {forged}\n".encode()
    assert reason_of(note, LOG.verifier_key) == "signature_invalid"


def test_one_bad_signature_of_a_known_key_spoils_a_note() -> None:
    note = sign_note("a\nb\n", [LOG]) + WITNESS.signature_line("other\n").encode()
    assert open_note(note, [LOG.verifier_key])[1] == (LOG.verifier_key,)
    assert reason_of(note, LOG.verifier_key, WITNESS.verifier_key) == "signature_invalid"


@given(st.data())
def test_no_changed_bit_of_a_checkpoint_goes_unseen(data: st.DataObject) -> None:
    note = bytearray(sign_checkpoint(0, EMPTY_ROOT, LOG))
    note[data.draw(st.integers(0, len(note) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Refusal):
        verify_checkpoint(bytes(note), LOG.verifier_key)


def test_keys_have_a_text_that_people_pin() -> None:
    assert VerifierKey.parse(LOG.verifier_key.text) == LOG.verifier_key
    for wrong in (
        "",
        "name+00000000",
        LOG.verifier_key.text.replace("receipts", "others"),
        LOG.verifier_key.text[:-4],
        NEUMANN.text.replace("+AR", "+BB"),
        "two words" + LOG.verifier_key.text,
    ):
        with pytest.raises(ValueError):
            VerifierKey.parse(wrong)
    for name in ("", "a b", "a+b", "a\nb"):
        with pytest.raises(ValueError):
            VerifierKey(name, bytes(32))


# ------------------------------------------------------------------------------------------------- checkpoints


@given(st.integers(1, MAX_LOG_SIZE), st.binary(min_size=32, max_size=32), st.lists(_lines.filter(bool), max_size=2))
def test_every_checkpoint_survives(size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint("example.com/receipts", size, root, tuple(extensions))
    assert parse_checkpoint(checkpoint.text) == checkpoint
    assert verify_checkpoint(sign_note(checkpoint.text, [WITNESS, LOG]), LOG.verifier_key) == checkpoint


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
