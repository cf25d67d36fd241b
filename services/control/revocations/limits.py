"""Limits of the stream of revocations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

CLOCK_LEAD_LEEWAYS = 2
"""How many leeways the clock of a replica that issued a token may be ahead of that of a replica that revokes it."""
MAX_LATEST_EVENTS = 5_000
"""Maximum number of the newest audit events, of a subject or an org, in which a revocation looks for such tokens."""


@dataclass(frozen=True, kw_only=True)
class RevocationLimits:
    """How revocations are handed on."""

    ring_items: int = 10_000
    """Newest revocations that are kept in memory; older ones are read from the database."""
    max_streams: int = 256
    """Maximum number of streams of a replica; each replica of a service that takes tokens has one."""
    page_items: int = 500
    """Maximum number of revocations in a message."""
    look_interval_s: float = 1.0
    """Time between two looks at the database, should word of a revocation have got lost."""
    alive_interval_s: float = 5.0
    """Time after which a stream without news says that it lives; also, after which a look is too old for that."""
    retry_s: float = 0.2
    """Wait before a read that failed is made again."""


def max_clock_lead(leeway_ms: int) -> timedelta:
    """How far the clock of a replica that issued a token may be ahead, with this OA_CLOCK_LEEWAY_MS. Two replicas that
    are ready are at most one leeway apart; the rest is for one that has just ceased to be ready."""
    return CLOCK_LEAD_LEEWAYS * timedelta(milliseconds=leeway_ms)
