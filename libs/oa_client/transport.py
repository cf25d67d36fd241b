"""What the core needs of the network. Implementations: `oa_client.cpython`; tests bring their own."""

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
        """POST and return whatever is answered. Raises Refusal `unavailable` or `deadline_exceeded` if nothing is."""

    async def get(self, url: str) -> HttpAnswer:
        """GET; see `post`."""


class SocketClosed(Exception):
    """The WebSocket has ended, or could not be opened.

    `reason` is of the catalogue where one is known (from an HTTP refusal of the handshake, or a close frame), else
    empty. `code` is the close code; 1006 when the connection broke.
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
        """The next message. Raises SocketClosed."""

    async def close(self) -> None:
        """Close with a farewell; does nothing when it is closed."""

    def abort(self) -> None:
        """Cut the TCP connection at once, without a farewell (RST)."""


class Sockets(Protocol):
    """Opens WebSockets."""

    async def open(self, url: str, subprotocol: str) -> Socket:
        """Open one. Raises SocketClosed when it can't be opened."""
