"""Metrics of mail."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

MAILS = Counter(
    "oa_control_mails",
    "What became of mail at this replica, by outcome: sent, later (the relay did not take it, it is tried again), "
    "refused (the relay never takes it), expired (it could not leave in time).",
    ["outcome"],
    registry=REGISTRY,
)
OLDEST = Gauge(
    "oa_control_mail_oldest_seconds",
    "For how long the oldest mail that has not left has waited; 0 when none waits.",
    registry=REGISTRY,
)
LOOKS_FAILED = Counter("oa_control_mail_looks_failed", "Looks for waiting mail that failed.", registry=REGISTRY)
