"""Metrics of sources."""

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
FRAMES_BY_SUBJECT = Gauge(
    "oa_khala_frames_by_subject",
    "1 while live frames of the source are taken from where it publishes them; 0 while on its stream.",
    ["source"],
    registry=REGISTRY,
)
FRAMES_PUBLISHED = Counter(
    "oa_khala_published_frames",
    "Live frames that came from where the source publishes them.",
    ["source"],
    registry=REGISTRY,
)
STRANGE_PUBLISHED = Counter(
    "oa_khala_strange_published",
    "Messages there that were none of a source: somebody else publishes on its subjects.",
    ["source"],
    registry=REGISTRY,
)
