"""Metrics of schedules."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from oa_platform.telemetry.metrics import REGISTRY

TIMES = Counter(
    "oa_runtime_scheduled_times",
    "Times of schedules that this replica settled, by outcome (started, skipped, refused) and reason: why it was "
    "skipped (missed, overlap) or refused.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
LATENESS = Histogram(
    "oa_runtime_schedule_lateness_seconds",
    "Time from a schedule's time to the creation of its run.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3_600),
    registry=REGISTRY,
)
LATE = Gauge(
    "oa_runtime_schedules_late_seconds",
    "How long the schedule that is overdue the longest has been due; 0 if none is due.",
    registry=REGISTRY,
)
PAUSED = Counter(
    "oa_runtime_schedules_paused",
    "Schedules that paused themselves, because their runs were refused or they may not start any more.",
    registry=REGISTRY,
)
LOOKS_FAILED = Counter(
    "oa_runtime_schedule_looks_failed", "Failed checks for schedules that are due.", registry=REGISTRY
)
