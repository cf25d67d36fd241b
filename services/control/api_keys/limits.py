"""Limits of API keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

MIN_TTL_S = 60
"""Minimum lifetime of a key that has an end."""
MAX_OVERLAP_S = 30 * 86_400
"""Maximum time for which a key still works after it was rotated."""
MAX_LISTED = 200
"""Maximum number of keys that a list shows, ended ones included."""
REFUSED_ON_RECORD_EVERY = timedelta(minutes=1)
"""A key that is tried after its end is recorded once in this time, however often it is tried."""
MAX_NOTED_KEYS = 10_000
"""Maximum number of keys whose use one replica remembers until it stores it."""
USES_WRITTEN_EVERY_S = 60.0
"""Time between two writes of when keys were used."""
MAX_ENDED_AT_ONCE = 500
"""Maximum number of expired keys that one sweep ends."""


@dataclass(frozen=True)
class KeyLimits:
    """Settings of API keys: how many active keys a service account or person may have, and the maximum lifetime of a
    person's key."""

    max_live: int = 20
    max_ttl_of_person: timedelta = timedelta(days=90)
