"""Metrics of the archive."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

RUNS_ARCHIVED = Counter("oa_runtime_runs_archived", "Runs that this replica moved to the archive.", registry=REGISTRY)
ARCHIVED_BYTES = Counter(
    "oa_runtime_archived_bytes", "Bytes that this replica stored in the archive.", registry=REGISTRY
)
ARCHIVES_FAILED = Counter(
    "oa_runtime_archives_failed",
    "Runs that could not be archived, by reason; they stay in the log.",
    ["reason"],
    registry=REGISTRY,
)
ARCHIVE_DAMAGED = Counter(
    "oa_runtime_archive_damaged", "Objects of the archive that were missing or had changed.", registry=REGISTRY
)
