"""What a server session asks of the gateway, and the subscription that both refer to."""

from dataclasses import dataclass, field

from oa_khala.frames import Cursor, ServerFrame
from oa_khala.server.parts import UnsentSnapshot
from oa_khala.topics import Topic


class DeliveryBroken(AssertionError):
    """The gateway was about to deliver something other than the next frame: a defect that ends the connection."""


@dataclass(slots=True, eq=False)
class Position:
    """How far delivery has come. Subscriptions that stand at the same seq of a topic may share one, and then move on
    together."""

    # 0 until the subscription is served, then the next seq to deliver.
    next_seq: int = 0

    def advance(self, first_seq: int, count: int) -> None:
        """Note that `count` events from `first_seq` on go to all who stand here. Raises DeliveryBroken if they aren't
        next."""
        if first_seq != self.next_seq or count < 1:
            raise DeliveryBroken(f"{count} frame(s) from {first_seq}, expected {self.next_seq}")
        self.next_seq += count


@dataclass(slots=True, eq=False)
class Subscription:
    """One topic of a connection, from its SUBSCRIBE to its end. The session changes it; the gateway reads it,
    and has those that stand at the same seq share a position."""

    topic: Topic
    name: str
    cursor: Cursor | None
    # Whether the source has confirmed the cursor. It is asked if the cursor has a chain, or is ahead of the feed.
    confirmed: bool = False
    live: bool = True
    epoch: str = ""
    position: Position = field(default_factory=Position)
    # Head at the time of SUBSCRIBED until CAUGHT_UP has been sent, then -1.
    catch_up_to: int = -1
    # Whether the client takes any snapshot, also in parts.
    takes_snapshots: bool = False
    # The snapshot that it begins with, while parts of it are unsent.
    unsent: UnsentSnapshot | None = None
    # The owners that the source reports, user and org; None before it has.
    owners: tuple[str, str] | None = None

    @property
    def next_seq(self) -> int:
        """0 until it is served, then the next seq to deliver."""
        return self.position.next_seq

    def share(self, position: Position) -> bool:
        """Stand at `position`, with others, from now on. Returns False if it does not stand there, or has not been told
        yet that it is caught up."""
        if not self.live or self.catch_up_to > -1 or self.next_seq != position.next_seq:
            return False
        self.position = position
        return True

    def part(self) -> None:
        """Stand alone again, at the same seq."""
        self.position = Position(self.next_seq)


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send `frame`, after everything that has been sent before."""

    frame: ServerFrame


@dataclass(frozen=True, slots=True)
class StartHeartbeats:
    """Send a heartbeat in `heartbeat_interval_ms`, or a little earlier, and after each further interval, until the
    connection closes. Given again, the interval begins anew."""


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
    """Deliver from `next_seq` on: history first, then live. All of it is noted by `Position.advance`."""

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


Command = (
    SendFrame
    | StartHeartbeats
    | VerifyToken
    | JoinFeed
    | ReadSnapshot
    | ConfirmCursor
    | Serve
    | LeaveFeed
    | CloseConnection
)
