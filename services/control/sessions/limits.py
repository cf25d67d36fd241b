"""Limits of sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

MAX_LISTED = 500
"""Maximum number of sessions that a list shows."""


@dataclass(frozen=True)
class SessionRetention:
    """How long sessions are kept after their end. Those that operators ended are kept for at least `audited`, as long
    as the audit log has their end: a person's own list of events finds these by their sessions."""

    ended: timedelta = timedelta(days=400)
    audited: timedelta = timedelta(days=400)

    @property
    def ended_by_operators(self) -> timedelta:
        """How long sessions that operators ended are kept."""
        return max(self.ended, self.audited)
