"""What is measured of the stream of revocations."""

from __future__ import annotations

from prometheus_client import Gauge

from oa_platform.telemetry.metrics import REGISTRY

WATCHERS = Gauge("oa_control_revocation_watchers", "Streams that follow the revocations.", registry=REGISTRY)
LOOKED = Gauge(
    "oa_control_revocation_looked_timestamp_seconds",
    "When this replica last asked the database for revocations, in seconds since 1970.",
    registry=REGISTRY,
)
POSITION = Gauge(
    "oa_control_revocation_position", "Position of the newest revocation that this replica knows.", registry=REGISTRY
)
