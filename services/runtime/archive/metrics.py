"""Metrics of the archive."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

RUNS_ARCHIVED = Counter("oa_runtime_runs_archived", "Runs that this replica moved to the archive.", registry=REGISTRY)
ARCHIVED_BYTES = Counter("oa_runtime_archived_bytes", "Bytes that it stored there.", registry=REGISTRY)
ARCHIVES_FAILED = Counter(
    "oa_runtime_archives_failed",
    "Runs that were not archived, by reason; they stay.",
    ["reason"],
    registry=REGISTRY,
)
ARCHIVE_DAMAGED = Counter(
    "oa_runtime_archive_damaged", "Objects that were missing or not what was put there.", registry=REGISTRY
)
