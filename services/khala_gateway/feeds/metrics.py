"""Metrics of feeds."""

from prometheus_client import Counter, Gauge, Histogram

from oa_platform.telemetry.metrics import REGISTRY

SUBSCRIPTIONS = Gauge("oa_khala_subscriptions", "Subscriptions, by class of topic.", ["topic_class"], registry=REGISTRY)
FEEDS = Gauge("oa_khala_feeds", "Topics held, by class.", ["topic_class"], registry=REGISTRY)
LIVE_FRAMES = Counter("oa_khala_live_frames", "Live frames received.", ["source"], registry=REGISTRY)
REPLAY_READS = Counter("oa_khala_replay_reads", "Pages of history read for subscribers.", ["source"], registry=REGISTRY)
REPLAY_JOINED = Counter(
    "oa_khala_replay_joined",
    "Pages of history that came from a read already in progress.",
    ["source"],
    registry=REGISTRY,
)
REPLAY_KEPT = Counter(
    "oa_khala_replay_kept", "Pages of history that had been read a moment before.", ["source"], registry=REGISTRY
)
CURSORS_CONFIRMED = Counter(
    "oa_khala_cursors_confirmed", "Cursors about which a source was asked.", ["source"], registry=REGISTRY
)
SNAPSHOTS_READ = Counter("oa_khala_snapshots_read", "Snapshots read for subscribers.", ["source"], registry=REGISTRY)
UNREADABLE_PAYLOADS = Counter(
    "oa_khala_unreadable_payloads", "Payloads that `khala.v2.json` had to carry as bytes.", registry=REGISTRY
)
INFLATED_BYTES = Counter(
    "oa_khala_inflated_bytes", "Bytes of the compressed messages before compression.", registry=REGISTRY
)
DEFLATED_BYTES = Counter(
    "oa_khala_deflated_bytes", "Bytes of the compressed messages after compression.", registry=REGISTRY
)
SNAPSHOTS_KEPT = Counter(
    "oa_khala_snapshots_kept", "Snapshots that had been read a moment before.", ["source"], registry=REGISTRY
)
DELIVERED = Counter("oa_khala_delivered_frames", "Events handed to connections.", registry=REGISTRY)
DELIVERED_BYTES = Counter("oa_khala_delivered_bytes", "Bytes of events handed to connections.", registry=REGISTRY)
DELIVERY_AGE = Histogram(
    "oa_khala_delivery_age_seconds",
    "Age of the oldest live event in a flush, by its source's clock, when the flush has been written to the sockets of "
    "all subscribers that keep up.",
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
HOLES = Counter("oa_khala_feed_holes", "Holes in feeds that were repaired.", ["topic_class"], registry=REGISTRY)
LINEAGES_ENDED = Counter("oa_khala_lineages_ended", "Feeds whose epoch changed.", ["topic_class"], registry=REGISTRY)
