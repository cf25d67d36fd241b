"""The network that the core needs. Implementations: `oa_client.cpython`; tests have their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class HttpAnswer:
    """An HTTP answer; header names in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Http(Protocol):
    """Makes HTTP requests."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """POST and return any answer. Raises Refusal `unavailable` or `deadline_exceeded` if there is none."""

    async def get(self, url: str) -> HttpAnswer:
        """GET; see `post`."""


class SocketClosed(Exception):
    """The WebSocket has ended, or could not be opened.

    `reason` is a reason of the catalogue if one is known (from an HTTP refusal of the handshake, or a close frame),
    otherwise empty. `code` is the close code; 1006 if the connection broke.
    """

    def __init__(self, message: str, *, reason: str = "", code: int = 1006, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.retry_after_ms = retry_after_ms


class Socket(Protocol):
    """An open WebSocket with binary messages."""

    async def send(self, data: bytes) -> None:
        """Send one message. Raises SocketClosed."""

    async def receive(self) -> bytes:
        """Return the next message. Raises SocketClosed."""

    async def close(self) -> None:
        """Close with a closing handshake. Does nothing if the socket is already closed."""

    def abort(self) -> None:
        """Cut the TCP connection at once, without a closing handshake (RST)."""


class Sockets(Protocol):
    """Opens WebSockets."""

    async def open(self, url: str, subprotocol: str) -> Socket:
        """Open a WebSocket. Raises SocketClosed if it can't be opened."""
