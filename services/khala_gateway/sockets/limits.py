"""Named limits of the WebSocket port and of each of its sockets. Times in milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from oa_platform.config.parsers import IpNetwork


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Limits of one socket."""

    max_frame_bytes: int = 64 * 1024
    # The opening request, from its first line to the empty one.
    max_request_bytes: int = 16 * 1024
    handshake_deadline_ms: int = 5_000
    # Maximum time for a closing handshake, once everything that was written has been sent.
    close_timeout_ms: int = 3_000
    # Maximum time to send what was written, once the close has begun.
    linger_ms: int = 30_000
    # Above the first size, nothing more is written until the socket holds less than the second.
    write_high_bytes: int = 256 * 1024
    write_low_bytes: int = 64 * 1024
    # While nothing more is written, answers to the client may add this much before the client is no longer read.
    answers_bytes: int = 16 * 1024
    # How much the system may keep for a connection: in total, and how much of that may be unsent. At 100 ms to a
    # client, 256 KiB under way are 2.5 MB/s. A client that stops reading costs about the second: 143 KB measured on
    # Linux, where the system's own choice was 4.2 MB.
    send_buffer_bytes: int = 256 * 1024
    unsent_bytes: int = 64 * 1024
    # Minimum size of messages that are compressed for clients that offer it; None: compression is declined.
    deflate_from_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PortLimits:
    """Limits of the port."""

    socket: SocketLimits = field(default_factory=SocketLimits)
    # Time over which a drain spreads the closing of connections.
    drain_window_ms: int = 3_000
    # Our own proxies in front, whose X-Forwarded-For is believed.
    trusted: Sequence[IpNetwork] = ()
    # TLS handshakes under way with one network.
    max_handshakes_of_network: int = 200
    backlog: int = 1_024
