"""Limits of the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class AuditLogLimits:
    """How events get into the log, how much of it is read at once, and how long it is kept."""

    seal_interval_s: float = 1.0
    """Time between two looks for events that are to be sealed."""
    sealed_at_once: int = 1000
    """Events that are sealed in one transaction."""
    page_items: int = 50
    """Events of a page of a list that asks for no number."""
    looked_at: int = 10_000
    """Events that one page of a filtered list looks at."""
    chain_items: int = 500
    """Events of one answer with a part of the chain."""
    kept_for: timedelta = timedelta(days=400)
    """Age at which events are dropped."""
    dropped_at_once: int = 10_000
    """Events that are looked at in one transaction that drops the oldest."""
