"""Named limits of the WebSocket port and of each of its sockets. Times in milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from oa_platform.config.parsers import IpNetwork


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Limits of one socket."""

    max_frame_bytes: int = 64 * 1024
    handshake_deadline_ms: int = 5_000
    # How long a closing handshake may take, once everything that was written has left.
    close_timeout_ms: int = 3_000
    # How long what was written may take to leave, once the close has begun.
    linger_ms: int = 30_000
    # Above the first, nothing more is written until the socket holds less than the second.
    write_high_bytes: int = 256 * 1024
    write_low_bytes: int = 64 * 1024
    # While nothing more is written, answers to the client may add so much before it is no longer read.
    answers_bytes: int = 16 * 1024
    # What the system may keep for a connection: in all, and of that what has not been sent yet. At 100 ms to a client,
    # 256 KiB under way are 2.5 MB/s. One that stops reading costs about the second: on Linux 143 KB, measured, where
    # the system's own choice was 4.2 MB.
    send_buffer_bytes: int = 256 * 1024
    unsent_bytes: int = 64 * 1024
    # From which size on messages are compressed for clients that offer it; None: compression is declined.
    deflate_from_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PortLimits:
    """Limits of the port."""

    socket: SocketLimits = field(default_factory=SocketLimits)
    # Over how long the connections' closes are spread in a drain.
    drain_window_ms: int = 3_000
    # Our own proxies in front, whose X-Forwarded-For is believed.
    trusted: Sequence[IpNetwork] = ()
    backlog: int = 1_024
