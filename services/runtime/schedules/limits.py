"""Limits of schedules."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ScheduleLimits:
    """How many schedules there may be, how often they start runs, and how much is kept of them."""

    max_schedules: int = 100
    """Schedules of an org; deleted ones don't count."""
    max_name_chars: int = 64
    max_cron_chars: int = 200
    max_spec_bytes: int = 262_144
    min_distance_ms: int = 60_000
    """Shortest distance between two times of a schedule."""
    catch_up_ms: int = 3_600_000
    """How late a run may start, of a schedule that says nothing of it."""
    min_catch_up_ms: int = 10_000
    """Shortest catch-up window that a schedule may ask for: a time is always a little late."""
    max_backfill: int = 100
    """Times of one backfill."""
    max_refusals: int = 5
    """Refusals in a row after which a schedule pauses itself."""
    look_interval_ms: int = 1_000
    """Between looks for schedules that are due."""
    page: int = 16
    """Schedules that are looked after in one transaction."""
    missed_page: int = 100
    """Missed times of a schedule that are counted in one transaction: each of them is computed, and others wait."""
    kept_times: int = 50
    """Newest records of what became of a schedule's times."""
    shown_times: int = 5
    """Next times that are shown of a schedule."""
    keep_deleted_ms: int = 86_400_000
    """For how long the id and the key of a deleted schedule are known."""
