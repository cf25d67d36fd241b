"""What is counted of workers."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

WORKERS_ATTACHED = Gauge("oa_runtime_workers_attached", "Workers attached to this replica.", registry=REGISTRY)
LEASES = Gauge("oa_runtime_leases", "Leases of the workers attached to this replica.", registry=REGISTRY)
WORKERS_LOST = Counter(
    "oa_runtime_workers_lost",
    "Workers that this replica declared lost, by cause: silent (its replica did not hear it), not_back (its replica "
    "went away, and it attached to no other).",
    ["cause"],
    registry=REGISTRY,
)
WORKERS_SENT_AWAY = Counter(
    "oa_runtime_workers_sent_away",
    "Workers that this replica asked to attach elsewhere because its looks failed for too long.",
    registry=REGISTRY,
)
LOOKS_FAILED = Counter(
    "oa_runtime_watch_looks_failed", "Looks for lost workers that failed: silence is counted anew.", registry=REGISTRY
)
