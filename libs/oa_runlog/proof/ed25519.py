"""Ed25519 (RFC 8032): checking signatures. Signing is in `signing`."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def signature_fits(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` is over `data`, by the owner of `public_key`. A malformed key or signature fits nothing."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
