"""Limits of children."""

from __future__ import annotations

from dataclasses import dataclass, field

from oa_platform.config.shared import QuarantineSettings


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """How many runs may descend from one run, and how they are looked after."""

    max_children: int = 1_000
    """Maximum number of children of one run, over its whole life."""
    max_depth: int = 8
    """Maximum number of generations above a run. A run that no run has started has none."""
    interval_ms: int = 1_000
    """Pause between looks when nothing else triggers one."""
    pause_ms: int = 50
    """Minimum pause between looks."""
    page: int = 500
    """Maximum number of children that one look handles."""
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings)
    """How runs that can't be handled because of a defect are left out."""
