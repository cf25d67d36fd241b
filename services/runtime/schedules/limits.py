"""Limits of schedules."""

from __future__ import annotations

from dataclasses import dataclass, field

from oa_platform.config.shared import QuarantineSettings


@dataclass(frozen=True, kw_only=True)
class ScheduleLimits:
    """How many schedules may exist, how often they start runs, and how much of them is kept."""

    max_schedules: int = 100
    """Maximum number of schedules of an org; deleted ones don't count."""
    max_name_chars: int = 64
    max_cron_chars: int = 200
    max_spec_bytes: int = 262_144
    min_distance_ms: int = 60_000
    """Minimum distance between two times of a schedule."""
    catch_up_ms: int = 3_600_000
    """How late a run of a schedule may start if the schedule does not state it."""
    min_catch_up_ms: int = 10_000
    """Minimum catch-up window that a schedule may ask for, because every time is settled a little late."""
    max_backfill: int = 100
    """Maximum number of times of one backfill."""
    max_refusals: int = 5
    """Number of consecutive refusals after which a schedule pauses itself."""
    look_interval_ms: int = 1_000
    """Pause between looks for schedules that are due."""
    page: int = 16
    """Maximum number of schedules that one transaction handles."""
    missed_page: int = 100
    """Maximum number of a schedule's missed times that one transaction counts: it computes each, and others wait."""
    kept_times: int = 50
    """Maximum number of records of a schedule's times that are kept: the newest."""
    shown_times: int = 5
    """Number of next times that are shown for a schedule."""
    keep_deleted_ms: int = 86_400_000
    """How long the id and the key of a deleted schedule are remembered."""
    forget_page: int = 100
    """Maximum number of deleted schedules that one look forgets, with the records of their times."""
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings)
    """How schedules that can't be handled because of a defect are left out."""
