"""Signed notes: a published vector, round trips, and everything that must not be taken for one."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog.proof.notes import MAX_NOTE_BYTES, MAX_SIGNATURES, VerifierKey, open_note
from oa_runlog.proof.signing import NoteSigner, sign_note

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


def reason_of(note: bytes, *keys: VerifierKey) -> str:
    """Why a note is not opened."""
    with pytest.raises(Refusal) as caught:
        open_note(note, keys)
    return caught.value.reason


def test_the_published_note_opens_and_is_signed_the_same() -> None:
    opened, keys = open_note(NEUMANN_NOTE, [NEUMANN])
    assert opened.startswith("If you think")
    assert keys == (NEUMANN,)
    signer = NoteSigner("PeterNeumann", Ed25519PrivateKey.from_private_bytes(NEUMANN_PRIVATE))
    assert signer.verifier_key == NEUMANN
    assert sign_note(opened, [signer]) == NEUMANN_NOTE


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
