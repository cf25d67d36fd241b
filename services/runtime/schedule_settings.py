"""Settings of schedules, a group of the settings in `config`."""

from __future__ import annotations

from dataclasses import dataclass

from oa_platform.config.loading import setting
from oa_platform.config.parsers import integer
from services.runtime.schedules.limits import ScheduleLimits

_SCHEDULES = ScheduleLimits()


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How many schedules may exist, how often they start runs, and how much of them is kept."""

    max_schedules: int = setting(
        "OA_SCHEDULES_MAX",
        integer(0, 1_000_000),
        _SCHEDULES.max_schedules,
        doc="Maximum number of schedules of an org. Deleted ones don't count.",
    )
    max_name_chars: int = setting(
        "OA_SCHEDULES_MAX_NAME_CHARS",
        integer(1, 200),
        _SCHEDULES.max_name_chars,
        doc="Maximum length of a schedule's name.",
    )
    max_cron_chars: int = setting(
        "OA_SCHEDULES_MAX_CRON_CHARS",
        integer(9, 1000),
        _SCHEDULES.max_cron_chars,
        doc="Maximum length of a cron expression.",
    )
    max_spec_bytes: int = setting(
        "OA_SCHEDULES_MAX_SPEC_BYTES",
        integer(1, 4 << 20),
        _SCHEDULES.max_spec_bytes,
        doc="Maximum size of what a schedule's runs execute, with their input.",
    )
    min_distance_ms: int = setting(
        "OA_SCHEDULES_MIN_DISTANCE_MS",
        integer(1, 31_536_000_000),
        _SCHEDULES.min_distance_ms,
        doc="Minimum interval between two times of a new schedule.",
    )
    catch_up_ms: int = setting(
        "OA_SCHEDULES_CATCH_UP_MS",
        integer(1, 2_592_000_000),
        _SCHEDULES.catch_up_ms,
        doc="Catch-up window of a new schedule that does not specify one: how late a run may start. Later times "
        "are skipped.",
    )
    min_catch_up_ms: int = setting(
        "OA_SCHEDULES_MIN_CATCH_UP_MS",
        integer(1, 2_592_000_000),
        _SCHEDULES.min_catch_up_ms,
        doc="Minimum catch-up window that a new schedule may ask for.",
    )
    max_backfill: int = setting(
        "OA_SCHEDULES_MAX_BACKFILL",
        integer(1, 10_000),
        _SCHEDULES.max_backfill,
        doc="Maximum number of past times that one backfill starts.",
    )
    max_refusals: int = setting(
        "OA_SCHEDULES_MAX_REFUSALS",
        integer(1, 10_000),
        _SCHEDULES.max_refusals,
        doc="Number of consecutive refused runs after which a schedule pauses itself.",
    )
    look_interval_ms: int = setting(
        "OA_SCHEDULES_LOOK_MS",
        integer(10, 60_000),
        _SCHEDULES.look_interval_ms,
        doc="Interval between checks for schedules that are due.",
    )
    page: int = setting(
        "OA_SCHEDULES_PAGE",
        integer(1, 1000),
        _SCHEDULES.page,
        doc="Maximum number of schedules that one transaction handles.",
    )
    missed_page: int = setting(
        "OA_SCHEDULES_MISSED_PAGE",
        integer(2, 100_000),
        _SCHEDULES.missed_page,
        doc="Maximum number of a schedule's missed times that one transaction counts.",
    )
    kept_times: int = setting(
        "OA_SCHEDULES_KEPT_TIMES",
        integer(1, 1000),
        _SCHEDULES.kept_times,
        doc="Maximum number of a schedule's past times whose outcome is kept.",
    )
    shown_times: int = setting(
        "OA_SCHEDULES_SHOWN_TIMES",
        integer(1, 1000),
        _SCHEDULES.shown_times,
        doc="Number of upcoming times that are shown for a schedule.",
    )
    keep_deleted_ms: int = setting(
        "OA_SCHEDULES_KEEP_DELETED_MS",
        integer(0, 31_536_000_000),
        _SCHEDULES.keep_deleted_ms,
        doc="How long the id and the idempotency key of a deleted schedule are remembered.",
    )
    forget_page: int = setting(
        "OA_SCHEDULES_FORGET_PAGE",
        integer(1, 10_000),
        _SCHEDULES.forget_page,
        doc="Maximum number of deleted schedules that one check forgets.",
    )

    def limits(self) -> ScheduleLimits:
        """The settings as `ScheduleLimits`."""
        return ScheduleLimits(**vars(self))
