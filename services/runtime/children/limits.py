"""Limits of children."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """How many runs may come from one, and how they are looked after."""

    max_children: int = 1_000
    """Children of one run, over its whole life."""
    max_depth: int = 8
    """Generations above a run: a run that nobody's run has started has none."""
    interval_ms: int = 1_000
    """Pause between looks without a cause."""
    pause_ms: int = 50
    """Shortest pause between looks."""
    page: int = 500
    """Children that are looked after at once."""
