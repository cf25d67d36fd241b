"""Limits of requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """How many requests of one run are read."""

    max_requests: int = 1_000
    """Maximum number of requests of a run that can be listed and answered; later requests can't."""
    page_bytes: int = 1 << 20
    """Maximum number of bytes of their events that are read at once."""
