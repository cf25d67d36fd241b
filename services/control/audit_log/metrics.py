"""Metrics of the audit log."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

SEALED = Counter("oa_control_audit_sealed", "Audit events that this replica sealed.", registry=REGISTRY)
SEALS_FAILED = Counter(
    "oa_control_audit_seals_failed",
    "Failed attempts to seal audit events; they are repeated.",
    registry=REGISTRY,
)
OLDEST = Gauge(
    "oa_control_audit_unsealed_oldest_seconds",
    "How long the oldest audit event without a seal has waited; 0 if none waits.",
    registry=REGISTRY,
)
