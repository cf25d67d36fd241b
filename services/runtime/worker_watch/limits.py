"""Named limits of watching workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WorkerWatchLimits:
    """For one who watches."""

    pause_ms: int = 200
    """Shortest pause between two looks at how all workers stand."""
    interval_ms: int = 1_000
    """Maximum pause after that, without a word that something may have changed."""
    page: int = 500
    """Maximum number of workers in one message."""
