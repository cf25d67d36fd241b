"""Calling the services behind control."""

from __future__ import annotations

from typing import Protocol

from services.control.policy.domain import StandingPrincipal


class Upstreams(Protocol):
    """The services behind control, by the audience of their principal tokens: "runtime", "projector"."""

    async def forward(
        self, audience: str, method: str, body: bytes, principal: StandingPrincipal, timeout_s: float
    ) -> bytes:
        """The serialized answer of `method` ("package.Service/Method") of the service `audience`, called for
        `principal`. Raises Refusal: the service's own, or `unavailable` when it can't be reached."""
        ...
