"""The services of an installation and its operator, who of them may call whom, and how each is told."""

from __future__ import annotations

from collections.abc import Mapping

from oa_platform.config.shared import token_hash

OPERATOR = "operator"
"""Whoever runs the installation, with `oa admin`: people who share one token. No service."""
ACCEPTED = {
    "control": ("khala_gateway", "runtime", "projector", OPERATOR),
    "runtime": ("control", "projector", "khala_gateway"),
    "projector": ("control", "khala_gateway"),
    "khala_gateway": ("control",),
}
"""Who may call whom: service -> those whose token it takes."""
SERVICES = tuple(ACCEPTED)
CALLERS = (*SERVICES, OPERATOR)
"""All who have a token to call with."""


def accepted_services(service: str, tokens: Mapping[str, str]) -> str:
    """OA_ACCEPTED_SERVICES of a service: its callers with the hashes of their tokens (`tokens`: caller -> token)."""
    return ",".join(f"{caller}={token_hash(tokens[caller])}" for caller in ACCEPTED[service])
