"""Limits of the keys that sign tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class SigningKeyLimits:
    """How keys succeed each other."""

    published_for: timedelta = timedelta(minutes=10)
    """How long a key is published before it signs. Every verifier fetches the keys anew within less time."""
    kept_for: timedelta = timedelta(minutes=70)
    """How long a key verifies after the next one has begun to sign: the maximum lifetime of a token, and ten minutes
    for late replicas and for clocks that differ."""
    look_interval_s: float = 1.0
    """Time between two reads of the database."""
    min_look_interval_s: float = 0.2
    """Minimum time between two reads of the database because of an unknown key."""
