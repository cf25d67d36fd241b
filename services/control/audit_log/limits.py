"""Limits of the audit log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from oa_platform.config.shared import QuarantineSettings


@dataclass(frozen=True, kw_only=True)
class AuditLogLimits:
    """How events are sealed, how much of the log is read at once, and how long it is kept."""

    seal_interval_s: float = 1.0
    """Time between two checks for events that wait for a seal."""
    sealed_at_once: int = 200
    """Maximum number of events that are sealed in one transaction. Calls wait while their seals are computed."""
    page_items: int = 50
    """Number of events on a page, unless another number is asked for."""
    looked_at: int = 10_000
    """Maximum number of events that one page of a filtered list looks at."""
    chain_items: int = 500
    """Maximum number of events in one answer with a part of the chain."""
    kept_for: timedelta = timedelta(days=400)
    """Age at which events are dropped."""
    dropped_at_once: int = 10_000
    """Maximum number of events that one transaction looks at when it drops the oldest."""
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings)
    """How events that can't be sealed because of a defect are left out."""
