"""The ASGI application of the edge: the key set, and the methods."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.auth.jwks import JWKS_PATH
from oa_platform.health.clock_watch import CLOCK_HEADER
from services.control.edge.door.edge import Edge
from services.control.edge.door.middleware import AroundRequests

JWKS_MAX_AGE_S = 300
"""How long a key set may be kept: a new key is published at least this long before it signs."""


def edge_app(
    edge: Edge, jwks: Mapping[str, object], clock: Clock, allowed_origins: Collection[str], max_head_bytes: int
) -> ASGIApp:
    """The application, with everything that stands around its requests."""
    return AroundRequests(_Routes(edge, jwks, clock), allowed_origins, max_head_bytes)


class _Routes:
    """The two kinds of things that there are. Raises Refusal, which the middleware answers."""

    def __init__(self, edge: Edge, jwks: Mapping[str, object], clock: Clock) -> None:
        self._edge = edge
        self._clock = clock
        self._jwks = json.dumps(jwks, separators=(",", ":")).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = self._key_set(request) if scope["raw_path"] == JWKS_PATH.encode() else await self._edge.serve(request)
        await answer(scope, receive, send)

    def _key_set(self, request: Request) -> Response:
        request.state.method = "jwks"
        if request.method not in ("GET", "HEAD"):
            raise Refusal(
                "method_not_allowed",
                "this is not the way to read the key set; use GET",
                metadata={"allow": "GET, HEAD"},
            )
        headers = {
            "content-type": "application/jwk-set+json",
            "cache-control": f"public, max-age={JWKS_MAX_AGE_S}",
            "cross-origin-resource-policy": "cross-origin",
            # What other services compare their clocks with.
            CLOCK_HEADER: str(self._clock.now_ms()),
        }
        return Response(self._jwks, headers=headers)
