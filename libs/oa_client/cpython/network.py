"""Http on httpx, and Sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

from oa_base.environment import with_port, with_trust_advice, without_password
from oa_base.refusal import Refusal
from oa_client.transport import HttpAnswer, Socket, SocketClosed

HTTP_TIMEOUT_S = 30.0
"""Maximum silence of a site: while connecting, while it takes a request, and between two parts of its answer."""
HTTP_CALL_TIMEOUT_S = 120.0
"""Maximum time of a whole call, also with a site that is never silent for long."""
PROXY_VARIABLE = "OA_PROXY"
CA_VARIABLE = "OA_CA_FILE"
_UNUSED = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


class HttpxHttp:
    """An Http that keeps its connections. Close it, or use it in `async with`.

    The connections belong to the event loop in which they are used first. When that loop has been closed, the next one
    gets connections of its own, and so does a forked process. A call in another loop while the first one is open, and a
    call after `close`, raise RuntimeError.

    `proxy`: the URL of an HTTP proxy for everything except loopback. Without it none is used, whatever the environment
    says. `ca_file`: certificates of authorities (PEM) that are trusted besides the public ones and this machine's.
    """

    def __init__(self, proxy: str = "", ca_file: Path | None = None) -> None:
        """Raises Refusal(invalid_setting) for a `ca_file` that can't be used."""
        self._proxy = proxy
        self._trust = tls_context(ca_file) if ca_file is not None else None
        self._clients: dict[tuple[bool, bool], httpx.AsyncClient] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._binding = threading.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        self._bind()
        self._closed = True
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """See Http."""
        return await self._request("POST", url, body, headers)

    async def get(self, url: str) -> HttpAnswer:
        """See Http."""
        return await self._request("GET", url, b"", {})

    async def _request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        where = f"{urlsplit(url).scheme}://{urlsplit(without_password(url)).netloc}"
        way = words_of_way(url, self._proxy)
        try:
            async with asyncio.timeout(HTTP_CALL_TIMEOUT_S):
                answer = await self._client_for(url).request(method, url, content=body, headers=dict(headers))
        except httpx.TimeoutException:
            message = f"{where} did not answer within {HTTP_TIMEOUT_S:g} s{way}; try again"
            raise Refusal("deadline_exceeded", message) from None
        except TimeoutError:
            message = f"{where} did not complete its answer within {HTTP_CALL_TIMEOUT_S:g} s{way}; try again"
            raise Refusal("deadline_exceeded", message) from None
        except httpx.HTTPError as error:
            message = f"{where} can't be reached{way} ({_said(error)}); is it running? `oa up` starts a stack"
            raise Refusal("unavailable", message) from None
        except httpx.InvalidURL:
            raise Refusal(
                "invalid_setting", f"{where} is no URL; write https:// and a host", field="OA_CONTROL_URL"
            ) from None
        return HttpAnswer(answer.status_code, answer.content, dict(answer.headers))

    def _bind(self) -> None:
        """Let the running loop have the connections. Raises RuntimeError if another one that is open has them."""
        loop = asyncio.get_running_loop()
        with self._binding:  # threads, each with a loop of its own, may come at the same time
            if self._loop is loop:
                return
            is_of_parent = self._process != os.getpid()
            if self._loop is not None and not self._loop.is_closed() and not is_of_parent:
                raise RuntimeError("this client is in use in another event loop; make a client in each loop")
            self._clients = {}  # they can't be closed: their loop is gone, or their connections are the parent's
            self._loop, self._process = loop, os.getpid()

    def _client_for(self, url: str) -> httpx.AsyncClient:
        if self._closed:
            raise RuntimeError("this client is closed; make another one")
        self._bind()
        is_local, is_secure = is_loopback(url), urlsplit(url).scheme == "https"
        client = self._clients.get((is_local, is_secure))
        if client is None:
            # Our own transport, because a client would take proxies from the environment. SSL_CERT_FILE still applies.
            # Without TLS nobody has to be trusted, and reading all authorities takes longer than a call.
            trust = self._trusted() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport = httpx.AsyncHTTPTransport(verify=trust, proxy=None if is_local else self._proxy or None)
            client = httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, transport=transport)
            self._clients[is_local, is_secure] = client
        return client

    def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            self._trust = tls_context(None)
        return self._trust


class WebSockets:
    """A Sockets; `proxy` and `ca_file` are as for HttpxHttp. With `compress` it offers
    permessage-deflate, and continues without it if a gateway declines it."""

    def __init__(self, proxy: str = "", ca_file: Path | None = None, *, compress: bool = False) -> None:
        self._proxy = proxy
        self._ca_file = ca_file
        self._compress = compress

    async def open(self, url: str, subprotocol: str) -> Socket:
        """See Sockets."""
        from oa_client.cpython.websocket import open_socket  # here, because most commands open none

        tls = tls_context(self._ca_file) if urlsplit(url).scheme == "wss" else None
        proxy = None if is_loopback(url) else self._proxy or None
        try:
            return await open_socket(url, subprotocol, tls, proxy, compress=self._compress)
        except (OSError, TimeoutError, ssl.SSLError) as error:
            way = words_of_way(url, self._proxy)
            message = f"{without_password(url)} can't be opened{way} ({_said(error)}); check that it is running"
            raise SocketClosed(message) from None


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the public authorities, this machine's, and those of the file. Raises Refusal(invalid_setting)."""
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


def words_of_way(url: str, proxy: str) -> str:
    """The route of a call, for its error: through which proxy, or past which proxy that the environment names."""
    if is_loopback(url):
        return ""
    if proxy:
        return f" through the proxy {without_password(with_port(proxy))} ({PROXY_VARIABLE})"
    unused = next((name for name in _UNUSED if os.environ.get(name)), "")
    return f" without a proxy ({unused} is not used: set {PROXY_VARIABLE} to go through one)" if unused else ""


def _said(error: Exception) -> str:
    return with_trust_advice(str(error) or type(error).__name__)
