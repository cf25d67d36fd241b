"""Sockets of many subscribers, as bytes: the frames that let a client in, and a protocol that reads and discards."""

from __future__ import annotations

import asyncio
import resource
import sys
from typing import cast

from oa_khala import frames
from oa_khala.frames import ClientFrame, Cursor, Form
from oa_khala.wire import encode_client_frame
from services.khala_gateway.admission.domain import PATH

SPARE_FILES = 200
LET_ALL_IN = {
    f"OA_WS_{limit}": "100000"
    for limit in (
        "HANDSHAKE_BURST",
        "HANDSHAKE_BURST_PER_ADDRESS",
        "WAITING_PER_ADDRESS",
        "CONNECTIONS_PER_ADDRESS",
        "CONNECTIONS_PER_SESSION",
        "CONNECTIONS_PER_PRINCIPAL",
    )
}
"""Settings of a gateway. All clients of a benchmark are on one machine, and may belong to one person."""
UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {Form.PROTO.value}\r\n"
).encode()
_OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


class Subscriber(asyncio.Protocol):
    """Opens a connection for one topic, and discards the frames that arrive."""

    def __init__(
        self, token: str, topic: str, device_id: str = "dev_1", cursor: Cursor | None = None, *, deflate: bool = False
    ) -> None:
        """Without a `cursor` it begins at the start of what is kept. With `deflate` it takes compressed messages."""
        self._request = UPGRADE + (_OFFER if deflate else b"") + b"\r\n"
        self._cursor = cursor
        self._token = token
        self._topic = topic
        self._device_id = device_id
        self._writer: asyncio.Transport
        self._newest = b""
        self.heard = asyncio.Event()
        """Set when the server has sent something."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        self._writer = cast("asyncio.Transport", transport)
        self._writer.write(self._request)

    def ping(self) -> None:
        """Show the gateway that the client is alive."""
        self._writer.write(client_message(frames.Ping(1)))

    def data_received(self, data: bytes) -> None:
        """Begin once the server has answered: RFC 6455 allows nothing before."""
        if not self.heard.is_set():
            self.heard.set()
            hello = frames.Hello(self._token, self._device_id, "bench/1")
            subscribe = frames.Subscribe(((self._topic, self._cursor),))
            self._writer.write(client_message(hello) + client_message(subscribe))
        self.received(data)

    def received(self, data: bytes) -> None:
        """Discard the data. The last data is kept because it says why a connection ends."""
        self._newest = data

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end: only the server ends a connection, and the person who measures must know."""
        print(f"a subscriber's connection has ended: {self._newest[-200:]!r}", file=sys.stderr)


def client_message(frame: ClientFrame) -> bytes:
    """A frame of a client as the bytes of a WebSocket message."""
    return masked(0x82, encode_client_frame(frame, Form.PROTO))


def masked(first: int, payload: bytes) -> bytes:
    """A frame of a client with that first byte. A mask of zeros leaves the payload as it is."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


def allow_sockets(count: int) -> None:
    """Let this process, and those that it starts, have `count` sockets, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count + SPARE_FILES, hard)), hard))
