"""Metrics of the log's epochs."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

EPOCHS_GIVEN = Counter(
    "oa_runtime_epochs_given",
    "Epochs that this replica gave the log, by cause: events_missing, history_unknown.",
    ["cause"],
    registry=REGISTRY,
)
