"""Around every request: request id, trace, origin check, security headers, answers to refusals, log and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping

import structlog
from opentelemetry.trace import Span, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oa_base.refusal import Refusal
from oa_platform.health.failures import refusal_of
from oa_platform.telemetry import metrics
from oa_platform.telemetry.context import REQUEST_ID_KEY, adopt_request_id
from oa_platform.telemetry.tracing import start_server_span
from oa_wire.connect import to_connect
from services.control.edge.domain import is_same_origin
from services.control.edge.door.errors import error_headers
from services.control.edge.door.head import check_head
from services.control.routes.domain.requests import FOREIGN

_log = structlog.get_logger(__name__)
_PREFLIGHT_MAX_AGE_S = 600
_ALLOWED_HEADERS = (
    "authorization, content-type, content-encoding, connect-protocol-version, connect-timeout-ms, "
    "x-request-id, x-oa-client-build, traceparent, tracestate"
)
_BODY_UNREAD = frozenset({"request_too_large"})
_LINGER_S = 1.0
_LINGER_BYTES = 16 << 20
_EXPOSED_HEADERS = "date, x-request-id, retry-after"
UNKNOWN_METHOD = "unknown"
"""The name in logs and metrics of a request that is for none of our methods."""
SECURITY_HEADERS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
}
"""Headers of every answer of our own. Browsers ignore the last one over plain HTTP, and obey it behind a TLS proxy."""
_UNLESS_SET = [
    (name.encode(), value.encode()) for name, value in {**SECURITY_HEADERS, "cache-control": "no-store"}.items()
]


class AroundRequests:
    """The only middleware. It is raw ASGI, so nothing is buffered twice."""

    def __init__(self, app: ASGIApp, allowed_origins: Collection[str], max_head_bytes: int) -> None:
        self._app = app
        self._max_head_bytes = max_head_bytes
        self._allowed_origins = frozenset(allowed_origins)
        metrics.show_refusals("http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._allowed_origins)
        try:
            check_head(scope, self._max_head_bytes)
            if not await exchange.handled_before(receive):
                await self._app(scope, receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer, and we a record
            await exchange.fail(error, receive)
        finally:
            exchange.close()


async def _throw_away(receive: Receive) -> None:
    thrown = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while thrown < _LINGER_BYTES:
                message = await receive()
                thrown += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return


def _vary_by_origin(headers: MutableHeaders) -> None:
    stated = headers.get("vary", "").lower().split(",")
    if not {"origin", "*"} & {name.strip() for name in stated}:
        headers.add_vary_header("origin")


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send, allowed_origins: frozenset[str]) -> None:
        headers = Headers(scope=scope)
        self._scope = scope
        self._send = send
        self._origin = headers.get("origin")
        self._origin_allowed = self._origin in allowed_origins or (
            self._origin is not None and is_same_origin(self._origin, headers.get("host", ""))
        )
        # A cache must not give a page of a listed origin the answer that was made for nobody's page.
        self._varies = bool(allowed_origins)
        self._preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        self._request_id = adopt_request_id(headers.get(REQUEST_ID_KEY))
        self._span: Span = start_server_span(scope["path"], headers)
        self._started = time.perf_counter()
        self._status = 0
        self._reason = metrics.OK_REASON
        scope.setdefault("state", {})

    async def handled_before(self, receive: Receive) -> bool:
        """Answer a preflight, and refuse a page of an origin that isn't allowed. Return whether the request is done."""
        if self._origin is not None and not self._origin_allowed:
            message = "pages of this origin may not call the edge; its operator lists origins in OA_ALLOWED_ORIGINS"
            raise Refusal("origin_not_allowed", message)
        if not self._preflight:
            return False
        headers = {
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": _ALLOWED_HEADERS,
            "access-control-max-age": str(_PREFLIGHT_MAX_AGE_S),
        }
        await Response(status_code=204, headers=headers)(self._scope, receive, self.send)
        return True

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer, adding our headers to its start."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            if not self._scope["state"].get(FOREIGN):
                stated = {name for name, _ in headers.raw}
                headers.raw.extend(each for each in _UNLESS_SET if each[0] not in stated)
            headers[REQUEST_ID_KEY] = self._request_id
            if self._origin is not None and self._origin_allowed:
                headers["access-control-allow-origin"] = self._origin
                headers["access-control-expose-headers"] = _EXPOSED_HEADERS
            if self._varies or self._origin_allowed:
                _vary_by_origin(headers)
        await self._send(message)

    async def fail(self, error: Exception, receive: Receive) -> None:
        """Answer with the error that was raised, unless an answer has already begun."""
        refusal = self._refusal(error)
        self._reason = refusal.reason
        metrics.count_refusal(refusal.reason, "http")
        if self._status:
            return
        headers = {"content-type": "application/json", **error_headers(refusal)}
        body = to_connect(refusal)
        if refusal.reason not in _BODY_UNREAD:
            await Response(body, refusal.info.http_status, headers)(self._scope, receive, self.send)
            return
        # The rest of the body isn't read, so the connection can't be used again. If it were closed while the client
        # still sends, the client could lose the answer (RFC 9112, 9.6), so for a moment what arrives is thrown away.
        answer = Response(body, refusal.info.http_status, headers | {"connection": "close"})
        await self.send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        await _throw_away(receive)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self, error: Exception) -> Refusal:
        refusal = refusal_of(error)
        if refusal:
            return refusal
        _log.error("request_failed", method=self._method, exc_info=error)
        message = "this is a defect on our side; report the request id, under which it is logged"
        return Refusal("internal", message, metadata={"request_id": self._request_id})

    @property
    def _method(self) -> str:
        return str(self._scope["state"].get("method", UNKNOWN_METHOD))

    def close(self) -> None:
        """Log and count the request, and end its span."""
        seconds = time.perf_counter() - self._started
        _log.info(
            "http_request",
            method=self._method,
            http_method=self._scope["method"],
            status=self._status,
            reason=self._reason,
            duration_ms=round(seconds * 1000, 2),
        )
        metrics.RPCS.labels(self._method, self._reason).inc()
        metrics.RPC_DURATION.labels(self._method, self._reason).observe(seconds)
        self._span.update_name(self._method)
        self._span.set_attribute("oa.reason", self._reason)
        if self._reason == "internal":
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
