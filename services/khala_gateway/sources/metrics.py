"""What is counted of sources."""

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

UPSTREAM_UP = Gauge(
    "oa_khala_upstream_up", "1 while the source's stream stands and the source answers.", ["source"], registry=REGISTRY
)
UPSTREAM_CHECKED = Gauge(
    "oa_khala_upstream_checked_timestamp_seconds",
    "Unix time at which the source's stream brought its latest delivery check.",
    ["source"],
    registry=REGISTRY,
)
REPLAYS_HEDGED = Counter(
    "oa_khala_replays_hedged",
    "Reads of history that took long, and were made a second time.",
    ["source"],
    registry=REGISTRY,
)
