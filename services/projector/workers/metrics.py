"""Metrics of following workers."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from oa_platform.telemetry.metrics import REGISTRY

FOLLOWING = Gauge("oa_projector_workers_followed", "1 while this replica follows runtime's workers.", registry=REGISTRY)
ROWS = Counter("oa_projector_worker_rows", "Rows written to the journals of workers.", registry=REGISTRY)
