"""Partitions of the log: the share of the runs that a run belongs to."""

from __future__ import annotations

import hashlib


def partition_of(key: str, partitions: int) -> int:
    """The partition of a run (by its id) among `partitions`: first 4 bytes of its SHA-256, big-endian, modulo."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % partitions
