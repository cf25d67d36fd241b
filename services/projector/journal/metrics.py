"""Metrics of journals."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

ROWS_PRUNED = Counter(
    "oa_projector_journal_rows_pruned", "Rows that are kept no longer.", ["topic_class"], registry=REGISTRY
)
