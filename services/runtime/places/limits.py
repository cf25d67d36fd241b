"""Limits of places."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlaceLimits:
    """How what control tells of places is carried out."""

    retry_s: float = 1.0
    """Pause before what could not be carried out is tried again."""
    look_interval_s: float = 5.0
    """Between looks for what another replica, or a call that was under way, has left behind."""
    page: int = 100
    """Runs of deleted orgs that are asked to end at a time."""
