"""Metrics of sources."""

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

UPSTREAM_UP = Gauge(
    "oa_khala_upstream_up", "1 while the source's stream stands and the source answers.", ["source"], registry=REGISTRY
)
UPSTREAM_CHECKED = Gauge(
    "oa_khala_upstream_checked_timestamp_seconds",
    "When the source's stream last brought a delivery check, in seconds since 1970.",
    ["source"],
    registry=REGISTRY,
)
REPLAYS_HEDGED = Counter(
    "oa_khala_replays_hedged",
    "Reads of history that took long and were made a second time.",
    ["source"],
    registry=REGISTRY,
)
FRAMES_BY_SUBJECT = Gauge(
    "oa_khala_frames_by_subject",
    "1 while the source's live frames come over the NATS server; 0 while they come on its stream.",
    ["source"],
    registry=REGISTRY,
)
FRAMES_PUBLISHED = Counter(
    "oa_khala_published_frames",
    "Live frames that came over the NATS server.",
    ["source"],
    registry=REGISTRY,
)
STRANGE_PUBLISHED = Counter(
    "oa_khala_strange_published",
    "Messages on the source's subjects that are not the source's: somebody else publishes there.",
    ["source"],
    registry=REGISTRY,
)
