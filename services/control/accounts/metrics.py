"""Metrics of deleted accounts."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

DELETED = Counter(
    "oa_control_accounts_deleted",
    "Accounts that were deleted at this replica, by who did it: person or operator.",
    ["by"],
    registry=REGISTRY,
)
