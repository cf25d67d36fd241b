"""The ASGI application of the edge: the key set, the OpenAPI document, and the methods."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.auth.jwks import JWKS_PATH
from oa_platform.health.clock_watch import CLOCK_HEADER
from oa_platform.http.validators import etag_of, is_unchanged
from services.control.edge.door.edge import Edge
from services.control.edge.door.middleware import AroundRequests
from services.control.edge.door.openapi.comments import comments
from services.control.edge.door.openapi.document import OPENAPI_PATH, openapi

_METHODS = b"/openagents."
"""The prefix of every method's path."""
JWKS_MAX_AGE_S = 300
"""How long a key set may be cached: a new key is published at least this long before it signs."""


def edge_app(
    edge: Edge,
    jwks: Callable[[], Mapping[str, object]],
    clock: Clock,
    allowed_origins: Collection[str],
    max_head_bytes: int,
    *,
    web: ASGIApp | None = None,
    behind: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> ASGIApp:
    """The application, including the middleware around its requests.

    `jwks` returns the current key set. `web` gets requests for neither a document nor a method; without it these are
    refused as an unknown method. `behind` wraps all of it in an outer application.
    """
    return AroundRequests(behind(_Routes(edge, jwks, clock, web)), allowed_origins, max_head_bytes)


class _Routes:
    """Two documents, the methods, and the web. Raises Refusal, which the middleware answers."""

    def __init__(self, edge: Edge, jwks: Callable[[], Mapping[str, object]], clock: Clock, web: ASGIApp | None) -> None:
        self._edge = edge
        self._web = web
        self._clock = clock
        # Made when somebody asks for it: most starts of control are for other things.
        methods = functools.cache(lambda: _as_json(openapi(edge.methods, comments())))
        self._documents = {
            JWKS_PATH.encode(): _Document("jwks", "application/jwk-set+json", lambda: _as_json(jwks())),
            OPENAPI_PATH.encode(): _Document("openapi", "application/json", methods),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        document = self._documents.get(scope["raw_path"])
        if self._web is not None and document is None and not scope["raw_path"].startswith(_METHODS):
            await self._web(scope, receive, send)
            return
        answer = self._read(request, document) if document else await self._edge.serve(request)
        await answer(scope, receive, send)

    def _read(self, request: Request, document: _Document) -> Response:
        request.state.method = document.name
        if request.method not in ("GET", "HEAD"):
            raise Refusal(
                "method_not_allowed",
                "this is not the way to read a document; use GET",
                metadata={"allow": "GET, HEAD"},
            )
        content = document.content()
        headers = {
            "content-type": document.media_type,
            "cache-control": f"public, max-age={JWKS_MAX_AGE_S}",
            "etag": etag_of(content),
            "cross-origin-resource-policy": "cross-origin",
            # Other services compare their clocks with it.
            CLOCK_HEADER: str(self._clock.now_ms()),
        }
        if is_unchanged(request.headers.get("if-none-match", ""), headers["etag"]):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)


@dataclass(frozen=True, slots=True)
class _Document:
    """A document that everybody may read. `name` is for the log and the metrics."""

    name: str
    media_type: str
    content: Callable[[], bytes]


def _as_json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
