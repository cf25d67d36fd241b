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
    "From a schedule's time to the start of its run.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3_600),
    registry=REGISTRY,
)
LATE = Gauge(
    "oa_runtime_schedules_late_seconds",
    "For how long the schedule that is due longest has been so; 0 when none is.",
    registry=REGISTRY,
)
PAUSED = Counter(
    "oa_runtime_schedules_paused",
    "Schedules that paused themselves: their runs were refused, or they may start none any more.",
    registry=REGISTRY,
)
LOOKS_FAILED = Counter(
    "oa_runtime_schedule_looks_failed", "Looks for schedules that are due that failed.", registry=REGISTRY
)
