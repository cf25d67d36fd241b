"""What a server session asks of the gateway, and the named limits of one connection."""

from dataclasses import dataclass

from oa_khala.frames import Cursor, ServerFrame
from oa_khala.topics import Topic


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one connection. Times in milliseconds."""

    hello_deadline_ms: int = 5_000
    heartbeat_interval_ms: int = 15_000
    idle_timeout_ms: int = 60_000
    # How long a client may be unable to take anything.
    slow_consumer_ms: int = 30_000
    max_topics: int = 128
    max_frame_bytes: int = 64 * 1024
    # Frames that may wait while a token is verified.
    max_pipelined_frames: int = 16
    # Topics subscribed: so many at once, and so many a second in the long run.
    subscribe_burst: int = 256
    subscribe_per_s: int = 64


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send `frame`, after everything that has been sent before."""

    frame: ServerFrame


@dataclass(frozen=True, slots=True)
class VerifyToken:
    """Verify `token`, or if it is empty the one of the Authorization header; answer `token_accepted` or
    `token_refused`. At most one is asked for at a time."""

    token: str


@dataclass(frozen=True, slots=True)
class Attach:
    """Register on the topic's feed; when the feed stands, answer `topic_ready`, or `topic_refused`.

    `attachment` numbers the registrations of a connection: an answer to an earlier one is not heard.
    """

    topic: Topic
    attachment: int


@dataclass(frozen=True, slots=True)
class ConfirmCursor:
    """Ask the topic's source whether what `cursor` stands for is what it has; answer `cursor_confirmed` or
    `cursor_refused`."""

    topic: str
    attachment: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Serve:
    """Deliver `topic` from `next_seq` on: history first, then live. What is delivered goes through `delivered`."""

    topic: str
    next_seq: int


@dataclass(frozen=True, slots=True)
class Detach:
    """The connection no longer receives `topic`."""

    topic: str


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close with this WebSocket code; `reason` is the catalogue's."""

    code: int
    reason: str


Command = SendFrame | VerifyToken | Attach | ConfirmCursor | Serve | Detach | CloseConnection
