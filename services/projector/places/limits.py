"""Limits of places."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlaceLimits:
    """Limits of remembering what control reports about places."""

    retry_s: float = 1.0
    """Pause before another attempt to remember a change."""
