"""Named limits of watching workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WorkerWatchLimits:
    """Limits for one watcher."""

    pause_ms: int = 200
    """Minimum pause between two looks at the state of all workers."""
    interval_ms: int = 1_000
    """Maximum pause after that, without a hint that something may have changed."""
    page: int = 500
    """Maximum number of workers in one message."""
