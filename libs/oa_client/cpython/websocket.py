"""A Socket on the websockets package. `network` loads it when a socket is opened, because most commands open none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol

from oa_base.catalogue import is_reason
from oa_client.core.refusals import retry_after_ms
from oa_client.cpython.addresses import NEXT_ADDRESS_S, connected
from oa_client.transport import SocketClosed
from oa_wire.connect import from_connect

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Maximum size of a frame that is accepted from a gateway."""
_WINDOW_BITS = 12
# No context in either direction: nothing is kept between messages, and a message's size reveals nothing of another.
_COMPRESSION = ClientPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=_WINDOW_BITS,
    client_max_window_bits=_WINDOW_BITS,
)


class _Opening(connect):
    """Follows no redirect: the host that it names would get the token, and the session's requests. Waits for no dead
    address of the host."""

    async def open_tcp_connection(self) -> ClientConnection:
        """Without a proxy, on a connection of ours."""
        if self.proxy is None:
            self.create_connection_kwargs["sock"] = await connected(self.ws_uri.host, self.ws_uri.port)
        return await super().open_tcp_connection()

    def process_redirect(self, exc: Exception) -> Exception | str:
        """A redirect is a refused handshake."""
        return exc


async def open_socket(
    url: str, subprotocol: str, tls: ssl.SSLContext | None, proxy: str | None, *, compress: bool
) -> WebSocket:
    """Return an open socket. Raises SocketClosed if it is refused, OSError or TimeoutError if nobody answers."""
    try:
        connection = await _Opening(
            url,
            subprotocols=[Subprotocol(subprotocol)],
            ssl=tls,
            proxy=proxy,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # Khala has a heartbeat of its own
            max_size=MAX_MESSAGE_BYTES,
            compression=None,  # the package's own offer would keep a context
            extensions=[_COMPRESSION] if compress else None,
            **(_next_address() if proxy else {}),
        )
    except websockets.InvalidStatus as refused:
        raise _refused(refused) from None
    except websockets.WebSocketException as error:
        raise ConnectionError(str(error) or type(error).__name__) from None
    if connection.subprotocol != subprotocol:
        await connection.close()
        message = f"{url} does not speak {subprotocol}; check the address, or update this client"
        raise SocketClosed(message, reason="unsupported_protocol_version")
    return WebSocket(connection)


def _next_address() -> dict[str, Any]:
    """Options to try a proxy's next address while one is silent. Only loops of asyncio take them (not uvloop)."""
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return {}
    return {"happy_eyeballs_delay": NEXT_ADDRESS_S}


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
        try:
            await self._connection.close()
        except BaseException:  # canceled: the package leaves open a connection that the other end has not closed
            self._connection.transport.abort()
            raise

    def abort(self) -> None:
        """See Socket."""
        raw = self._connection.transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                # Linger time 0: the kernel discards unsent data, and tells the peer with a RST.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()


def _closed(closed: websockets.ConnectionClosed) -> SocketClosed:
    code = closed.rcvd.code if closed.rcvd else 1006
    said = closed.rcvd.reason if closed.rcvd else ""
    return SocketClosed(
        said or f"the gateway closed the connection with {code}; connect again",
        reason=said if is_reason(said) else "",
        code=code,
    )


def _refused(refused: websockets.InvalidStatus) -> SocketClosed:
    response = refused.response
    wait_ms = retry_after_ms(response.headers.get("Retry-After", ""))
    refusal = from_connect(response.status_code, bytes(response.body or b""), wait_ms)
    message = f"the handshake was refused with HTTP {response.status_code}: {refusal.message}"
    return SocketClosed(message, reason=refusal.reason, retry_after_ms=refusal.retry_after_ms)
