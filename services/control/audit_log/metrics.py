"""Metrics of the audit log."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

SEALED = Counter("oa_control_audit_sealed", "Audit events that this replica sealed.", registry=REGISTRY)
SEALS_FAILED = Counter(
    "oa_control_audit_seals_failed",
    "Attempts at sealing that failed; they are made again.",
    registry=REGISTRY,
)
OLDEST = Gauge(
    "oa_control_audit_unsealed_oldest_seconds",
    "For how long the oldest audit event without a seal has waited for it; 0 when none waits.",
    registry=REGISTRY,
)
