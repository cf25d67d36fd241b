"""Fingerprints, which distinguish a retry of a request from another request under the same idempotency key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def text_sha256(text: str) -> bytes:
    """Return the SHA-256 of a text's UTF-8, 32 bytes; empty for an empty text."""
    return hashlib.sha256(text.encode()).digest() if text else b""


def fingerprint(parts: Iterable[bytes]) -> bytes:
    """Return the SHA-256 of `parts`, each after its length (8 bytes, big-endian), so that no two lists are alike."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()
