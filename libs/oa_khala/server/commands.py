"""What a server session asks of the gateway."""

from dataclasses import dataclass

from oa_khala.frames import Cursor, ServerFrame
from oa_khala.topics import Topic


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
