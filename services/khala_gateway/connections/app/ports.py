"""What a connection needs of the door that it came through."""

from typing import Protocol

from services.khala_gateway.feeds.domain import Encoding


class Transport(Protocol):
    """The socket of one connection. Writing never blocks: `Connection.blocked` says when to stop."""

    @property
    def encoding(self) -> Encoding:
        """How messages are written on it."""
        ...

    @property
    def taken_bytes(self) -> int:
        """How much the client has taken since it connected, as far as the system knows."""
        ...

    def write(self, data: bytes) -> None:
        """Complete WebSocket messages, as they are."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        ...
