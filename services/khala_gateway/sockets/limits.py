"""Named limits of the WebSocket port and of each of its sockets. Times in milliseconds."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Limits of one socket."""

    max_frame_bytes: int = 64 * 1024
    handshake_deadline_ms: int = 5_000
    # How long a closing handshake may take, and how long what was written may take to leave.
    close_timeout_ms: int = 3_000
    # Above the first, nothing more is written until the socket holds less than the second.
    write_high_bytes: int = 256 * 1024
    write_low_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class PortLimits:
    """Limits of the port."""

    socket: SocketLimits = field(default_factory=SocketLimits)
    # Over how long the connections' closes are spread in a drain.
    drain_window_ms: int = 3_000
    backlog: int = 1_024
