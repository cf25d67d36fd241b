"""Partitions of the log: the part of the runs that a run belongs to."""

from __future__ import annotations

import hashlib


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a run (by its id): first 4 bytes of its SHA-256, big-endian, modulo `partitions`."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % partitions
