"""Metrics of replays."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

ARTIFACTS_MADE = Counter(
    "oa_runtime_artifacts_made", "Replay artifacts made from the log or read from the archive.", registry=REGISTRY
)
