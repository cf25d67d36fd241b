"""Limits of places."""

from __future__ import annotations

from dataclasses import dataclass, field

from oa_platform.config.shared import QuarantineSettings


@dataclass(frozen=True, kw_only=True)
class PlaceLimits:
    """How changes of places are carried out."""

    retry_s: float = 1.0
    """Pause before a change that could not be carried out is tried again."""
    look_interval_s: float = 5.0
    """Pause between looks for work that another replica, or a call in progress, has left behind."""
    page: int = 100
    """Maximum number of runs of deleted orgs that one look asks to end."""
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings)
    """How runs that can't be handled because of a defect are left out."""
