"""Limits of the sweeping of tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

SWEEP_INTERVAL_S = 60.0
"""Time between two sweeps."""
MAX_SWEPT_ROWS = 10_000
"""Maximum number of rows of a table that one sweep removes."""


@dataclass(frozen=True)
class Retention:
    """How long sessions, API keys and service accounts are kept after their end. Sessions and keys that operators ended
    are kept for at least `audited`, as long as the audit log has their end: a person's own list of events finds these
    by their sessions and keys."""

    ended: timedelta = timedelta(days=400)
    audited: timedelta = timedelta(days=400)

    @property
    def ended_by_operators(self) -> timedelta:
        """How long sessions and keys that operators ended are kept."""
        return max(self.ended, self.audited)
