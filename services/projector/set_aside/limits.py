"""The bounds of what is set aside; `services.projector.config` documents `max_runs`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SetAsideLimits:
    """How many runs are set aside, and how they are applied later."""

    max_runs: int = 100
    """Maximum number of runs that are set aside at a time. With more, the defect is one of the projector: it waits."""
    tried_runs: int = 100
    """Maximum number of runs that one look tries again."""
    page_entries: int = 500
    """Maximum number of waiting entries that one transaction applies."""
    look_interval_s: float = 5.0
    """Pause between looks for runs that may be tried again."""
