"""Limits of the keys that sign tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class SigningKeyLimits:
    """How keys follow each other."""

    published_for: timedelta = timedelta(minutes=10)
    """How long a key is published before it signs. Everybody who verifies fetches the keys anew in less."""
    kept_for: timedelta = timedelta(minutes=70)
    """How long a key verifies after the next one has begun to sign: the longest life of a token, and ten minutes for
    a replica that is late and for clocks."""
    look_interval_s: float = 1.0
    """Time between two looks at the database."""
    min_look_interval_s: float = 0.2
    """Shortest time between two looks because of a key that nobody here knows."""
