"""What is counted of the topics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

TOPICS_WATCHED = Gauge("oa_runtime_topics_watched", "Topics on Watch streams.", registry=REGISTRY)
FRAMES_DROPPED = Counter(
    "oa_runtime_frames_dropped", "Live frames not sent because their Watch stream was full.", registry=REGISTRY
)
FRAMES_PUBLISHED = Counter(
    "oa_runtime_frames_published", "Live frames handed to the server of OA_FRAMES_NATS_URL.", registry=REGISTRY
)
FRAMES_CONNECTED = Gauge(
    "oa_runtime_frames_connected",
    "1 while the server of OA_FRAMES_NATS_URL is connected; also without one.",
    registry=REGISTRY,
)
FRAMES_CONNECTED.set(1)
