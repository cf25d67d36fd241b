"""What is counted of journals."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

ROWS_PRUNED = Counter(
    "oa_projector_journal_rows_pruned", "Rows that are kept no longer.", ["topic_class"], registry=REGISTRY
)
FRAMES_PUBLISHED = Counter(
    "oa_projector_frames_published", "Live frames handed to the server of OA_FRAMES_NATS_URL.", registry=REGISTRY
)
FRAMES_CONNECTED = Gauge(
    "oa_projector_frames_connected",
    "1 while the server of OA_FRAMES_NATS_URL is connected; also without one.",
    registry=REGISTRY,
)
FRAMES_CONNECTED.set(1)
