"""The interface that a connection needs from the door that it came through."""

from collections.abc import Sequence
from typing import Protocol

from services.khala_gateway.feeds.domain import Encoding


class Transport(Protocol):
    """The socket of one connection. Writing never blocks: `Connection.blocked` says when to stop."""

    @property
    def encoding(self) -> Encoding:
        """The encoding of messages that are written to it."""
        ...

    @property
    def taken_bytes(self) -> int:
        """How many bytes the client has received since it connected, as far as the system knows."""
        ...

    def write(self, data: bytes) -> None:
        """Write complete WebSocket messages unchanged."""
        ...

    def write_all(self, messages: Sequence[bytes]) -> None:
        """Write several with one system call."""
        ...

    def read_on(self) -> None:
        """Handle what came while `Connection.is_full` was True."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        ...
