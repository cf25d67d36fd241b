"""What a server session asks of the gateway, and the subscription that both refer to."""

from dataclasses import dataclass

from oa_khala.frames import Cursor, ServerFrame
from oa_khala.server.parts import UnsentSnapshot
from oa_khala.topics import Topic


@dataclass(slots=True, eq=False)
class Subscription:
    """One topic of a connection, from its SUBSCRIBE to its end. The session changes it; the gateway only reads it."""

    topic: Topic
    name: str
    cursor: Cursor | None
    # Whether the source has confirmed that the cursor matches its data. A cursor without a chain needs no comparison.
    confirmed: bool
    live: bool = True
    epoch: str = ""
    # 0 until it is served, then the next seq to deliver.
    next_seq: int = 0
    # Head at the time of SUBSCRIBED until CAUGHT_UP has been sent, then -1.
    catch_up_to: int = -1
    # Whether the client takes any snapshot, also in parts.
    takes_snapshots: bool = False
    # The snapshot that it begins with, while parts of it are unsent.
    unsent: UnsentSnapshot | None = None
    # The owners that the source reports, user and org; None before it has.
    owners: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send `frame`, after everything that has been sent before."""

    frame: ServerFrame


@dataclass(frozen=True, slots=True)
class VerifyToken:
    """Verify `token`, or the one in the Authorization header if it is empty; answer `ServerSession.token_accepted` or
    `refused`. At most one verification is outstanding at a time."""

    token: str


@dataclass(frozen=True, slots=True)
class JoinFeed:
    """Register on the topic's feed; when the feed is ready, answer `Subscriptions.ready`, or `refused`."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class ReadSnapshot:
    """Read the topic's snapshot; answer `Subscriptions.snapshot`, or `refused`."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class ConfirmCursor:
    """Ask the topic's source whether `cursor` matches its data; answer `Subscriptions.cursor_confirmed` or
    `cursor_refused`."""

    subscription: Subscription
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Serve:
    """Deliver from `next_seq` on: history first, then live. All of it goes through `Subscriptions.delivered`."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class LeaveFeed:
    """The connection no longer receives the topic."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close with this WebSocket code; `reason` is one from the catalogue."""

    code: int
    reason: str


Command = SendFrame | VerifyToken | JoinFeed | ReadSnapshot | ConfirmCursor | Serve | LeaveFeed | CloseConnection
