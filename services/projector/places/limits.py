"""Limits of places."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlaceLimits:
    """Limits of remembering what control reports about places."""

    retry_s: float = 1.0
    """Pause before another attempt to remember a change."""
    known_within_s: float = 10.0
    """How long a projector that starts waits for changes from before, and applies nothing. After that it works without
    them."""
