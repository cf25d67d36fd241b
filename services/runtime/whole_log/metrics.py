"""Metrics of readers below the log's floor."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

ARCHIVED_ENTRIES_READ = Counter(
    "oa_runtime_archived_entries_read", "Entries that readers of the log got from the archive.", registry=REGISTRY
)
ARTIFACT_CACHE_FETCHES = Counter(
    "oa_runtime_artifact_cache_fetches", "Artifacts fetched for readers of the log.", registry=REGISTRY
)
ARTIFACT_CACHE_FAILURES = Counter(
    "oa_runtime_artifact_cache_failures",
    "Artifacts that could not be fetched for readers of the log, by reason.",
    ["reason"],
    registry=REGISTRY,
)
