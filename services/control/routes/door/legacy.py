"""The legacy upstream: a reverse proxy that passes on requests and answers as they arrive."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import httpx
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from oa_base.refusal import Refusal
from oa_platform.config.parsers import IpNetwork
from oa_platform.http.proxies import client_network, is_within
from oa_platform.telemetry.context import REQUEST_ID_KEY, current_request_id
from oa_platform.tls.protection import outside_trust
from services.control.routes.domain.requests import (
    BYPASS_HEADER,
    CHOICE_HEADER,
    CLIENT_WAS_SLOW,
    FOREIGN,
    without_our_cookies,
)
from services.control.routes.limits import CHUNKS_PER_TURN, LegacyLimits

_log = structlog.get_logger(__name__)
_OVERLOADED_RETRY_MS = 500
_NO_LINGER = struct.pack("ii", 1, 0)
"""`SO_LINGER` of 0 s. An address pair could otherwise not be used for a minute after a connection that we close, and
there are too few of them for a connection each request."""
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_FOR_EVERYBODY = frozenset(
    {
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "host",
        "origin",
        "range",
        "set-cookie",
    }
)
"""Headers that are never for one connection only: a `Connection` that names them is wrong (RFC 9110, 7.6.1)."""
_FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
_OURS = frozenset({BYPASS_HEADER, CHOICE_HEADER, REQUEST_ID_KEY, "cookie", "expect"})
_ANSWERED_HERE = frozenset({"date", "server"})
_BODILESS = frozenset({204, 304})

Headers = list[tuple[str, str]]


class Legacy:
    """An ASGI application. Use as an async context manager.

    The upstream gets the Host that the client asked for, and in X-Forwarded-For, -Host and -Proto how the request
    came here. Values that these headers had before count only from trusted proxies.

    Each request has a connection of its own. If the upstream sends more than its answer's length, or a body where an
    answer has none (to a HEAD, for example), the rest would otherwise be the answer to the next person's request.
    """

    def __init__(self, url: str, limits: LegacyLimits, trusted: Sequence[IpNetwork]) -> None:
        self._url = httpx.URL(url)
        self._limits = limits
        self._trusted = trusted
        pool = httpx.Limits(max_connections=limits.max_requests, max_keepalive_connections=0)
        # A bare transport, because a client would keep one person's cookies and send them for the next person.
        self._transport = httpx.AsyncHTTPTransport(
            verify=outside_trust(url),
            limits=pool,
            trust_env=False,
            socket_options=[(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)],
        )
        self._requests: Counter[str] = Counter()

    async def __aenter__(self) -> Legacy:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if "websocket" in request.headers.get("upgrade", "").lower():
            message = "no WebSocket goes through here; the legacy side has to take it at an address of its own"
            raise Refusal("unsupported_upgrade", message, field="upgrade")
        with self._room(request):
            answer = await self._answer(request)
            try:
                setattr(request.state, FOREIGN, True)
                await _passed_on(answer)(scope, receive, send)
            finally:
                await answer.aclose()

    @contextmanager
    def _room(self, request: Request) -> Iterator[None]:
        """Count a request, in total and for its network, while it runs. Raises Refusal `overloaded` above a maximum."""
        peer = request.client.host if request.client else ""
        network = client_network(peer, ",".join(request.headers.getlist("x-forwarded-for")), self._trusted)
        for count, maximum, whose in (
            (self._requests.total(), self._limits.max_requests, "the legacy side has"),
            (self._requests[network], self._limits.max_requests_of_network, "your network has"),
        ):
            if count >= maximum:
                message = f"{whose} {count} requests going on; try again"
                raise Refusal("overloaded", message, retry_after_ms=_OVERLOADED_RETRY_MS)
        self._requests[network] += 1
        try:
            yield
        finally:
            self._requests[network] -= 1
            if not self._requests[network]:
                del self._requests[network]

    async def _answer(self, request: Request) -> httpx.Response:
        """Return the head of the upstream's answer. Raises Refusal `unavailable`, `deadline_exceeded`, `cancelled`,
        `request_too_large`, `invalid_value`, `malformed_message`."""
        outgoing = self._outgoing(request)
        try:
            async with asyncio.timeout(None) as until_head:
                outgoing.extensions["trace"] = _limiting(until_head, self._limits.idle_timeout_s)
                return await self._transport.handle_async_request(outgoing)
        except httpx.LocalProtocolError:
            # This is about what the client sent: the upstream had no part in it.
            message = "this request has a header that can't be passed on; send only printable characters"
            raise Refusal("malformed_message", message) from None
        except (httpx.TimeoutException, TimeoutError):
            message = "the legacy side did not answer in time, and may have done what was asked; look before you retry"
            raise Refusal("deadline_exceeded", message) from None
        except ClientDisconnect:
            raise Refusal("cancelled", "the client went away") from None
        except httpx.TransportError as error:
            _log.warning("legacy_unreachable", error=type(error).__name__)
            raise Refusal("unavailable", "the legacy side can't be reached now; try again") from None

    def _outgoing(self, request: Request) -> httpx.Request:
        """The request to the upstream. Raises Refusal `invalid_value`."""
        scope = request.scope
        raw_path = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        try:
            url = self._url.copy_with(raw_path=raw_path)
        except (httpx.InvalidURL, UnicodeDecodeError):
            message = "this address can't be passed on; name a path, and escape all but printable ASCII characters"
            raise Refusal("invalid_value", message, field="path") from None
        idle_s = self._limits.idle_timeout_s
        timeout = httpx.Timeout(idle_s, connect=self._limits.connect_timeout_s, pool=self._limits.connect_timeout_s)
        return httpx.Request(
            request.method,
            url,
            headers=_encoded(self._headers(request)),
            content=self._body(request) if _has_body(request) else None,
            extensions={"timeout": timeout.as_dict()},
        )

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        size = 0
        chunks = request.stream()
        while True:
            try:
                async with asyncio.timeout(self._limits.idle_timeout_s):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                _check_length(request, size, is_all=True)
                return
            except TimeoutError:
                setattr(request.state, CLIENT_WAS_SLOW, True)
                raise Refusal("deadline_exceeded", "the body came too slowly; send it sooner") from None
            size += len(chunk)
            if size > self._limits.max_body_bytes:
                message = f"the request has more than {self._limits.max_body_bytes} bytes; send a smaller one"
                raise Refusal("request_too_large", message)
            _check_length(request, size)
            if chunk:
                yield chunk

    def _headers(self, request: Request) -> Headers:
        raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        headers = _end_to_end(raw, _OURS | _FORWARDED)
        cookies = without_our_cookies("; ".join(request.headers.getlist("cookie")))
        if cookies:
            headers.append(("cookie", cookies))
        return [*headers, *self._way(request), (REQUEST_ID_KEY, current_request_id()), ("connection", "close")]

    def _way(self, request: Request) -> Headers:
        peer = request.client.host if request.client else ""
        is_proxy = is_within(peer, self._trusted)
        given = request.headers if is_proxy else {}
        # All lines: a proxy such as HAProxy adds one of its own after those that its client sent.
        hops = request.headers.getlist("x-forwarded-for") if is_proxy else []
        return [
            ("x-forwarded-for", ", ".join(part for part in (*hops, peer) if part)),
            ("x-forwarded-host", given.get("x-forwarded-host") or request.headers.get("host", "")),
            ("x-forwarded-proto", given.get("x-forwarded-proto") or request.scope["scheme"]),
        ]


def _limiting(timeout: asyncio.Timeout, limit_s: float) -> Callable[[str, object], Awaitable[None]]:
    """A trace of httpx that limits the time from the end of the request to the end of the answer's head. Each byte of a
    head, and each interim answer (1xx), would otherwise extend it."""

    async def trace(step: str, _info: object) -> None:
        if step == "http11.receive_response_headers.started":
            timeout.reschedule(asyncio.get_running_loop().time() + limit_s)

    return trace


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


def _check_length(request: Request, size: int, *, is_all: bool = False) -> None:
    """The body has its declared length. With another one, the transport fails as if the defect were ours. Raises
    Refusal `malformed_message`."""
    declared = request.headers.get("content-length")
    if declared is None or size == int(declared) or (size < int(declared) and not is_all):
        return
    message = "the body is not as long as declared; send as many bytes as Content-Length says"
    raise Refusal("malformed_message", message) from None


def _end_to_end(headers: Iterable[tuple[str, str]], without: frozenset[str]) -> Headers:
    """The headers that are not only for this one connection (RFC 9110, 7.6.1), and not in `without`."""
    headers = list(headers)
    named = {
        token.strip().lower() for name, value in headers if name.lower() == "connection" for token in value.split(",")
    }
    dropped = _HOP_BY_HOP | (named - _FOR_EVERYBODY) | without
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers in the bytes that they came in. httpx would take a text for ASCII, which a value need not be."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _passed_on(answer: httpx.Response) -> StreamingResponse:
    """The upstream's answer, byte for byte as the upstream encoded it; it ends when either side ends."""
    without = _ANSWERED_HERE | ({"content-length"} if answer.status_code in _BODILESS else set())
    response = StreamingResponse(_content(answer), answer.status_code)
    response.raw_headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in _end_to_end(answer.headers.multi_items(), without)
    ]
    return response


async def _content(answer: httpx.Response) -> AsyncIterator[bytes]:
    chunks = 0
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
            chunks += 1
            if chunks % CHUNKS_PER_TURN == 0:
                # One read may hold ten thousand chunks of a byte, and httpx waits for nothing between them.
                await asyncio.sleep(0)
    except httpx.TransportError as error:
        # The head was already sent, so the client can only be shown that the answer was cut off.
        _log.warning("legacy_broke_off", error=type(error).__name__)
        raise Refusal("unavailable", "the legacy side broke off; try again") from None
