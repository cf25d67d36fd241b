"""Metrics of connections."""

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

CLOSES = Counter("oa_khala_closes", "Connections that the gateway closed, by reason.", ["reason"], registry=REGISTRY)
