"""Prometheus metrics. A service declares its own at module level with `REGISTRY`:

    APPENDS = Counter("oa_appends", "Appends by outcome.", ["outcome"], registry=REGISTRY)

Names start with `oa_` and end with a unit, if any; labels have few values: reasons, methods, outcomes, never ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry()
"""The metrics that /metrics shows."""
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_ALERTED = ("internal", "clock_skew")
"""Refusals of which an alert wants to know the first one."""
OK_REASON = "ok"
"""The label `reason` of calls that were not refused."""
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

RPC_DURATION = Histogram(
    "oa_rpc_duration_seconds",
    "Time of incoming unary calls, by method and reason (ok when not refused).",
    ["method", "reason"],
    registry=REGISTRY,
    buckets=_BUCKETS_S,
)
RPCS = Counter("oa_rpcs", "Incoming calls that have ended, streams included.", ["method", "reason"], registry=REGISTRY)
RPCS_IN_FLIGHT = Gauge("oa_rpcs_in_flight", "Incoming calls in progress.", ["kind"], registry=REGISTRY)
REFUSALS = Counter(
    "oa_refusals", "Refusals, by reason and where they were sent.", ["reason", "surface"], registry=REGISTRY
)
JWKS_FETCHES = Counter("oa_jwks_fetches", "Fetches of control's keys: ok or failed.", ["outcome"], registry=REGISTRY)
TLS_NOT_AFTER = Gauge(
    "oa_tls_not_after_seconds",
    "When the certificate in use expires, in seconds since 1970: service or edge.",
    ["certificate"],
    registry=REGISTRY,
)
TLS_RELOADS = Counter(
    "oa_tls_reloads",
    "Changed certificates that were taken up (ok), and checks that found files that can't be used (failed).",
    ["certificate", "outcome"],
    registry=REGISTRY,
)
CLOCK_AHEAD = Gauge(
    "oa_clock_ahead_seconds",
    "How far this process's clock is ahead of another (negative: behind), as last compared.",
    ["compared_with"],
    registry=REGISTRY,
)
DATABASE_USABLE = Gauge(
    "oa_database_usable", "1 while the database answers, takes writes and keeps them.", ["pool"], registry=REGISTRY
)
QUARANTINED = Counter(
    "oa_quarantined",
    "Failures of a background task on a single thing, such as a run, which the task then leaves out for a while.",
    ["task"],
    registry=REGISTRY,
)
BACKGROUND_FAILURES = Counter(
    "oa_background_failures",
    "Failures of background work, which is tried again, by the name of their log line.",
    ["event"],
    registry=REGISTRY,
)
READY = Gauge("oa_ready", "1 while the process is ready.", registry=REGISTRY)


def show_at_zero(counter: Counter, *values: Iterable[str]) -> None:
    """Show a counter at 0 before it counts, for all combinations of these values of its labels, in their order.

    To Prometheus, a counter that first shows as 1 has not grown, so an alert would not see the first event.
    """
    for labels in product(*values):
        counter.labels(*labels)


def show_refusals(surface: str) -> None:
    """Show the counters of refusals of which an alert wants to know the first one. `surface`: as of `count_refusal`."""
    show_at_zero(REFUSALS, _ALERTED, (surface,))


def count_refusal(reason: str, surface: str) -> None:
    """Count a refusal; `surface` is "grpc", "http" or "ws"."""
    REFUSALS.labels(reason, surface).inc()


def render(names: Sequence[str] = ()) -> bytes:
    """The metrics in Prometheus's text format: all, or those of these names."""
    return generate_latest(REGISTRY.restricted_registry(names) if names else REGISTRY)
