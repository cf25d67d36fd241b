"""Limits of the log of receipts."""

from __future__ import annotations

from dataclasses import dataclass, field

from oa_platform.config.shared import QuarantineSettings


@dataclass(frozen=True, kw_only=True)
class MergeLimits:
    """How receipts get into the log of receipts."""

    page: int = 1000
    """Maximum number of receipts merged in one transaction."""
    pause_ms: int = 100
    """Wait after a run has finished, so that runs that finish together get one checkpoint."""
    poll_ms: int = 2_000
    """Pause between searches for receipts when no run has finished."""
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings)
    """How receipts that can't be merged because of a defect are left out."""
