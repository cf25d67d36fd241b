"""Metrics of the topics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

TOPICS_WATCHED = Gauge("oa_runtime_topics_watched", "Topics on Watch streams.", registry=REGISTRY)
FRAMES_DROPPED = Counter(
    "oa_runtime_frames_dropped", "Live frames not sent because their Watch stream was full.", registry=REGISTRY
)
