"""Metrics of sign-ins with an identity provider."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.telemetry.metrics import REGISTRY

SIGN_INS = Counter(
    "oa_control_provider_sign_ins",
    "Sign-ins that were finished with an identity provider at this replica, by provider and outcome: done, or the "
    "reason for which it was refused (provider_unavailable: the provider did not answer as it should).",
    ["provider", "outcome"],
    registry=REGISTRY,
)
