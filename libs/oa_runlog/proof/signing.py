"""Signing receipts, the checkpoints of their log and the next key, with the private key of an installation.

To check them, `verify`, `checkpoint` and `endorsement` are enough.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oa_runlog.canonical import canonical_json
from oa_runlog.proof.checkpoint import Checkpoint
from oa_runlog.proof.keys import Endorsement, endorsed_bytes
from oa_runlog.proof.notes import VerifierKey, signature_line, write_note
from oa_runlog.proof.receipt import SignedReceipt, facts_of, key_id_of
from oa_runlog.state import RunState


class ReceiptSigner:
    """Signs receipts with one Ed25519 key. The same run gives the same bytes and the same signature."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_key)

    def sign(self, state: RunState, log_epoch: str) -> SignedReceipt:
        """The receipt of a finished run."""
        data = canonical_json(facts_of(state, log_epoch, self.key_id).members())
        return SignedReceipt(state.run_id, data, self._key.sign(data), self.key_id)

    def endorse(self, public_key: bytes) -> Endorsement:
        """The endorsement of the key that replaces this one."""
        return Endorsement(self.key_id, self._key.sign(endorsed_bytes(public_key)))


class NoteSigner:
    """Signs notes under a name."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier_key = VerifierKey(name, key.public_key().public_bytes_raw())
        """The key with which others verify the notes."""

    def signature_line(self, text: str) -> str:
        """The signature line for a text; the same text gives the same line."""
        return signature_line(self.verifier_key, self._key.sign(text.encode()))


def sign_note(text: str, signers: Iterable[NoteSigner]) -> bytes:
    """The note with this text, signed by each of `signers`, at least one. Raises ValueError as `write_note` does."""
    return write_note(text, (signer.signature_line(text) for signer in signers))


def sign_checkpoint(size: int, root: bytes, signer: NoteSigner) -> bytes:
    """The signed checkpoint of a log; its origin is the signer's name. The same log gives the same bytes."""
    return sign_note(Checkpoint(signer.verifier_key.name, size, root).text, [signer])
