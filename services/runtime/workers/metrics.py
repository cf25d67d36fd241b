"""Metrics of workers."""

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
    "Workers that this replica asked to attach elsewhere, because it could not reach the database for too long.",
    registry=REGISTRY,
)
RUNS_WAITING = Gauge(
    "oa_runtime_runs_waiting",
    "Runs that wait for a worker, of all orgs; those whose time has not come are left out.",
    registry=REGISTRY,
)
OLDEST_WAITING_SECONDS = Gauge(
    "oa_runtime_oldest_waiting_seconds",
    "How long the first of the waiting runs has waited; 0 if none waits.",
    registry=REGISTRY,
)
RUNS_TIMED_OUT = Counter(
    "oa_runtime_runs_timed_out",
    "Runs that this replica ended because a timeout had expired, by reason: start_timeout, run_timeout.",
    ["reason"],
    registry=REGISTRY,
)
LOOKS_FAILED = Counter(
    "oa_runtime_watch_looks_failed",
    "Failed checks for lost workers; after one, silence is counted anew.",
    registry=REGISTRY,
)
