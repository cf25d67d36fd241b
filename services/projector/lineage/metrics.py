"""Metrics of the journal's epochs."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

EPOCHS_GIVEN = Counter(
    "oa_projector_journal_epochs_given",
    "New epochs of the journal that this replica gave it, by cause: events_missing, history_unknown.",
    ["cause"],
    registry=REGISTRY,
)
