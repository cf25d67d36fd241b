"""Limits of the log of receipts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MergeLimits:
    """How receipts get into the log of receipts."""

    page: int = 1000
    """Receipts merged in one transaction."""
    pause_ms: int = 100
    """Wait after a run has finished, so that what finishes together gets one checkpoint."""
    poll_ms: int = 2_000
    """Pause between looks for receipts without a cause."""
