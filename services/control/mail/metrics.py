"""Metrics of mail."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

MAILS = Counter(
    "oa_control_mails",
    "Mails of this replica by outcome: sent, later (the relay did not take it; it is tried again), refused (the relay "
    "never takes it), expired (it could not be sent in time).",
    ["outcome"],
    registry=REGISTRY,
)
OLDEST = Gauge(
    "oa_control_mail_oldest_seconds",
    "How long the oldest unsent mail has waited; 0 if none waits.",
    registry=REGISTRY,
)
LOOKS_FAILED = Counter("oa_control_mail_looks_failed", "Failed checks for waiting mail.", registry=REGISTRY)
