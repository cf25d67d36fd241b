"""Metrics of retention."""

from __future__ import annotations

from prometheus_client import Gauge

from oa_platform.telemetry.metrics import REGISTRY

ARCHIVE_LAG_SECONDS = Gauge(
    "oa_runtime_archive_lag_seconds",
    "How long the run of the class that is overdue the longest has been due; 0 if none is due.",
    ["retention_class"],
    registry=REGISTRY,
)
RETENTION_UNKNOWN_SECONDS = Gauge(
    "oa_runtime_retention_unknown_seconds",
    "Time since the end of the oldest run in the log whose class is not configured; such runs are not archived.",
    ["retention_class"],
    registry=REGISTRY,
)
