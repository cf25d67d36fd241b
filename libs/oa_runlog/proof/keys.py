"""Receipt keys as values, without cryptography: a key, and the endorsement of an earlier one."""

from __future__ import annotations

from dataclasses import dataclass

from oa_runlog.proof.receipt import key_id_of

PUBLIC_KEY_BYTES = 32
"""Size of an Ed25519 public key."""
_ENDORSEMENT_CONTEXT = b"openagents.receipt-key.v1:"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """The signature of the key with the id `by` over `endorsed_bytes`."""

    by: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """A key that receipts are signed with, as an installation shows it."""

    public_key: bytes
    endorsement: Endorsement | None = None

    @property
    def key_id(self) -> str:
        """See `key_id_of`."""
        return key_id_of(self.public_key)


def endorsed_bytes(public_key: bytes) -> bytes:
    """What an endorsement of a key signs."""
    return _ENDORSEMENT_CONTEXT + public_key
