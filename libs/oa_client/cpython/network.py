"""Http on httpx, Sockets on websockets."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol

from oa_base.catalogue import is_reason
from oa_base.refusal import Refusal
from oa_client.core.refusals import retry_after_ms
from oa_client.transport import HttpAnswer, SocketClosed
from oa_wire.connect import from_connect

HTTP_TIMEOUT_S = 30.0
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Largest frame that is taken from a gateway."""
PROXY_VARIABLE = "OA_PROXY"
CA_VARIABLE = "OA_CA_FILE"
_WINDOW_BITS = 12
# No context in either direction: nothing is kept between messages, and no message tells of another one by its size.
_COMPRESSION = ClientPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=_WINDOW_BITS,
    client_max_window_bits=_WINDOW_BITS,
)
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_UNUSED = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


class HttpxHttp:
    """An Http that keeps its connections. Close it, or use it in `async with`.

    `proxy`: the URL of an HTTP proxy for all but loopback. Without one there is none, whatever the environment has.
    `ca_file`: certificates of authorities (PEM) that are trusted besides the public ones and this machine's.
    """

    def __init__(self, proxy: str = "", ca_file: Path | None = None) -> None:
        """Raises Refusal(invalid_setting) for a `ca_file` that can't be used."""
        self._proxy = proxy
        trust = tls_context(ca_file)
        # Transports of our own: clients would take proxies from the environment. SSL_CERT_FILE is still heeded.
        self._local = httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, transport=httpx.AsyncHTTPTransport(verify=trust))
        transport = httpx.AsyncHTTPTransport(verify=trust, proxy=proxy or None)
        self._remote = httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._local.aclose()
        await self._remote.aclose()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """See Http."""
        return await self._request("POST", url, body, headers)

    async def get(self, url: str) -> HttpAnswer:
        """See Http."""
        return await self._request("GET", url, b"", {})

    async def _request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        client = self._local if is_loopback(url) else self._remote
        where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        way = words_of_way(url, self._proxy)
        try:
            answer = await client.request(method, url, content=body, headers=dict(headers))
        except httpx.TimeoutException:
            message = f"{where} did not answer within {HTTP_TIMEOUT_S:g} s{way}; try again"
            raise Refusal("deadline_exceeded", message) from None
        except httpx.HTTPError as error:
            message = f"{where} can't be reached{way} ({_said(error)}); is it running? `oa up` starts a stack"
            raise Refusal("unavailable", message) from None
        except httpx.InvalidURL:
            raise Refusal(
                "invalid_setting", f"{where} is no URL; write https:// and a host", field="OA_CONTROL_URL"
            ) from None
        return HttpAnswer(answer.status_code, answer.content, dict(answer.headers))


class WebSockets:
    """A Sockets on the websockets package; `proxy` and `ca_file` as for HttpxHttp. With `compress` it offers
    permessage-deflate, and goes on without where a gateway declines it."""

    def __init__(self, proxy: str = "", ca_file: Path | None = None, *, compress: bool = False) -> None:
        self._proxy = proxy
        self._ca_file = ca_file
        self._extensions = [_COMPRESSION] if compress else None

    async def open(self, url: str, subprotocol: str) -> WebSocket:
        """See Sockets."""
        try:
            connection = await connect(
                url,
                subprotocols=[Subprotocol(subprotocol)],
                ssl=tls_context(self._ca_file) if urlsplit(url).scheme == "wss" else None,
                proxy=None if is_loopback(url) else self._proxy or None,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=None,  # Khala has a heartbeat of its own
                max_size=MAX_MESSAGE_BYTES,
                compression=None,  # the package's own offer would keep a context
                extensions=self._extensions,
            )
        except websockets.InvalidStatus as refused:
            raise _refused(refused) from None
        except (OSError, TimeoutError, ssl.SSLError, websockets.WebSocketException) as error:
            message = (
                f"{url} can't be opened{words_of_way(url, self._proxy)} ({_said(error)}); check that it is running"
            )
            raise SocketClosed(message) from None
        if connection.subprotocol != subprotocol:
            await connection.close()
            message = f"{url} does not speak {subprotocol}; check the address, or update this client"
            raise SocketClosed(message, reason="unsupported_protocol_version")
        return WebSocket(connection)


class WebSocket:
    """A Socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        """See Socket."""
        try:
            await self._connection.send(data)
        except websockets.ConnectionClosed as closed:
            raise _closed(closed) from None

    async def receive(self) -> bytes:
        """See Socket."""
        try:
            message = await self._connection.recv(decode=False)
        except websockets.ConnectionClosed as closed:
            raise _closed(closed) from None
        return message

    async def close(self) -> None:
        """See Socket."""
        await self._connection.close()

    def abort(self) -> None:
        """See Socket."""
        raw = self._connection.transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                # Lingering off: the kernel throws away what was not sent, and tells the peer with a RST.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the public authorities, this machine's, and those of the file. Raises Refusal(invalid_setting)."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one
        message = f"{ca_file} can't be used ({type(error).__name__}); give a file of certificates in PEM form"
        raise Refusal("invalid_setting", message, field=CA_VARIABLE) from None
    return context


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def words_of_way(url: str, proxy: str, env: Mapping[str, str] = os.environ) -> str:
    """How a call went, for its error: through which proxy, or past which that the environment names."""
    if is_loopback(url):
        return ""
    if proxy:
        parts = urlsplit(proxy)  # without its password
        return f" through the proxy {parts.scheme}://{parts.hostname}:{parts.port} ({PROXY_VARIABLE})"
    unused = next((name for name in _UNUSED if env.get(name)), "")
    return f" without a proxy ({unused} is not used: set {PROXY_VARIABLE} to go through one)" if unused else ""


def _said(error: Exception) -> str:
    said = str(error) or type(error).__name__
    return f"{said}; set {CA_VARIABLE} if the site has an authority of its own" if _UNTRUSTED in said else said


def _closed(closed: websockets.ConnectionClosed) -> SocketClosed:
    code = closed.rcvd.code if closed.rcvd else 1006
    said = closed.rcvd.reason if closed.rcvd else ""
    return SocketClosed(said or f"closed with {code}", reason=said if is_reason(said) else "", code=code)


def _refused(refused: websockets.InvalidStatus) -> SocketClosed:
    response = refused.response
    wait_ms = retry_after_ms(response.headers.get("Retry-After", ""))
    refusal = from_connect(response.status_code, bytes(response.body or b""), wait_ms)
    message = f"the handshake was refused with HTTP {response.status_code}: {refusal.message}"
    return SocketClosed(message, reason=refusal.reason, retry_after_ms=refusal.retry_after_ms)
