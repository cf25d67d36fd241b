"""Metrics of journals."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

ROWS_PRUNED = Counter(
    "oa_projector_journal_rows_pruned",
    "Rows removed from journals because they need not be kept.",
    ["topic_class"],
    registry=REGISTRY,
)
