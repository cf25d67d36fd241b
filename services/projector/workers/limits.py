"""Named limits of following workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WorkersLimits:
    """Pauses, in milliseconds."""

    backoff_min_ms: int = 100
    backoff_max_ms: int = 5_000
    turn_interval_ms: int = 2_000
    """Pause between attempts to become the replica that follows workers."""
