"""Limits of requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """How many requests of one run are listed, and how they are read."""

    max_requests: int = 1_000
    """Maximum number of requests of a run that are listed: the open ones, then those settled last."""
    page_bytes: int = 1 << 20
    """Maximum number of bytes of their events that are read at once."""
