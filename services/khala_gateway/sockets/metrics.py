"""Metrics of sockets."""

from prometheus_client import Gauge

from oa_platform.telemetry.metrics import REGISTRY

CONNECTIONS = Gauge("oa_khala_connections", "Open connections.", registry=REGISTRY)
