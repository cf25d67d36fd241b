"""Limits of requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """How many requests of one run are looked at."""

    max_requests: int = 1_000
    """Requests of a run that can be listed and answered; those after them can't."""
    page_bytes: int = 1 << 20
    """Bytes of their events that are read at once."""
