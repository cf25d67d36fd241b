"""Metrics of the log of receipts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

RECEIPTS_MERGED = Counter(
    "oa_runtime_receipts_merged", "Receipts that this replica put into the log of receipts.", registry=REGISTRY
)
MERGES_FAILED = Counter("oa_runtime_merges_failed", "Failed merges of receipts; they are repeated.", registry=REGISTRY)
UNMERGED = Gauge("oa_runtime_receipts_unmerged", "Receipts that wait for the log of receipts.", registry=REGISTRY)
MERGE_LAG_SECONDS = Gauge(
    "oa_runtime_merge_lag_seconds",
    "How long the oldest receipt has waited for that; 0 if none waits.",
    registry=REGISTRY,
)
RECEIPT_LOG_SIZE = Gauge(
    "oa_runtime_receipt_log_leaves", "Leaves of the log of receipts, as this replica last saw it.", registry=REGISTRY
)
