"""What the runtime counts of the log of receipts, of replay artifacts and of the archive."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

RECEIPTS_MERGED = Counter(
    "oa_runtime_receipts_merged", "Receipts that this replica put into the log of receipts.", registry=REGISTRY
)
MERGES_FAILED = Counter("oa_runtime_merges_failed", "Merges that failed; they are tried again.", registry=REGISTRY)
UNMERGED = Gauge("oa_runtime_receipts_unmerged", "Receipts that wait for the log of receipts.", registry=REGISTRY)
MERGE_LAG_SECONDS = Gauge(
    "oa_runtime_merge_lag_seconds", "How long the oldest of them has waited; 0 when none does.", registry=REGISTRY
)
RECEIPT_LOG_SIZE = Gauge(
    "oa_runtime_receipt_log_leaves", "Leaves of the log of receipts, as this replica last saw it.", registry=REGISTRY
)
ARTIFACTS_MADE = Counter(
    "oa_runtime_artifacts_made", "Replay artifacts made from the log or read from the archive.", registry=REGISTRY
)
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
ARCHIVED_ENTRIES_READ = Counter(
    "oa_runtime_archived_entries_read", "Entries of the log that its readers got out of the archive.", registry=REGISTRY
)
ARTIFACT_CACHE_FETCHES = Counter(
    "oa_runtime_shelf_fetches", "Artifacts fetched for readers of the log.", registry=REGISTRY
)
ARTIFACT_CACHE_FAILURES = Counter(
    "oa_runtime_shelf_failures", "Artifacts that could not be had for them, by reason.", ["reason"], registry=REGISTRY
)
ARCHIVE_LAG_SECONDS = Gauge(
    "oa_runtime_archive_lag_seconds",
    "For how long the run of the class that is due longest has been so; 0 when none is.",
    ["retention_class"],
    registry=REGISTRY,
)
RETENTION_UNKNOWN_SECONDS = Gauge(
    "oa_runtime_retention_unknown_seconds",
    "Time since the end of the oldest run in the log whose class is not configured; such runs are not archived.",
    ["retention_class"],
    registry=REGISTRY,
)
