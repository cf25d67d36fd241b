"""Metrics of the route split, the canaries and the maintenance."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from oa_platform.telemetry.metrics import REGISTRY

REQUESTS = Counter(
    "oa_control_web_requests_total", "Web requests by side and class of status.", ["side", "status"], registry=REGISTRY
)
FIRST_BYTE = Histogram(
    "oa_control_web_first_byte_seconds", "Time to the head of a web answer.", ["side"], registry=REGISTRY
)
VERSION = Gauge(
    "oa_control_routes_version", "Version of the route groups, as this replica knows it.", registry=REGISTRY
)
LOOKED = Gauge(
    "oa_control_routes_looked_timestamp_seconds",
    "When this replica last asked the database for the route groups, in seconds since 1970.",
    registry=REGISTRY,
)
MAINTENANCE = Gauge("oa_control_maintenance", "1 while this replica keeps the site closed.", registry=REGISTRY)
CANARIES = Gauge("oa_control_canaries", "Running canaries.", registry=REGISTRY)
CANARY_ENDS = Counter(
    "oa_control_canary_ends_total", "Canaries that this replica has ended, by outcome.", ["outcome"], registry=REGISTRY
)
