"""Limits of places."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlaceLimits:
    """How what control tells of places is remembered."""

    retry_s: float = 1.0
    """Pause before what could not be remembered is tried again."""
