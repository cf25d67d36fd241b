"""Metrics of the keys that sign tokens."""

from __future__ import annotations

from prometheus_client import Gauge

from oa_platform.telemetry.metrics import REGISTRY

PUBLISHED = Gauge(
    "oa_control_signing_keys", "Keys with which tokens are verified, including the next one.", registry=REGISTRY
)
LOOKED = Gauge(
    "oa_control_signing_keys_looked_timestamp_seconds",
    "When this replica last asked the database for the keys, in seconds since 1970.",
    registry=REGISTRY,
)
