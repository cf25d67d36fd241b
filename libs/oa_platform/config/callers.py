"""The services of an installation and its operator, which of them may call which, and how each service is told."""

from __future__ import annotations

from collections.abc import Mapping

from oa_platform.config.shared import token_hash

OPERATOR = "operator"
"""The people who run the installation with `oa admin`, and who share one token. Not a service."""
ACCEPTED = {
    "control": ("khala_gateway", "runtime", "projector", OPERATOR),
    "runtime": ("control", "projector", "khala_gateway"),
    "projector": ("control", "khala_gateway"),
    "khala_gateway": ("control",),
}
"""Service -> the callers that may call it, because it accepts their tokens."""
SERVICES = tuple(ACCEPTED)
CALLERS = (*SERVICES, OPERATOR)
"""All callers that have a token."""


def accepted_services(service: str, tokens: Mapping[str, str]) -> str:
    """OA_ACCEPTED_SERVICES of a service: its callers with the hashes of their tokens (`tokens`: caller -> token)."""
    return ",".join(f"{caller}={token_hash(tokens[caller])}" for caller in ACCEPTED[service])
