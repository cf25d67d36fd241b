"""What is counted of connections."""

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

DELIVERED = Counter("oa_khala_delivered_frames", "Events handed to connections.", registry=REGISTRY)
DELIVERED_BYTES = Counter("oa_khala_delivered_bytes", "Bytes of events handed to connections.", registry=REGISTRY)
CLOSES = Counter("oa_khala_closes", "Connections that the gateway closed, by reason.", ["reason"], registry=REGISTRY)
