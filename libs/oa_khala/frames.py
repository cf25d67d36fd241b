"""The values of all frames, in both directions, as the sessions see them. `wire` maps them to bytes and back."""

from dataclasses import dataclass
from enum import Enum

PROTOCOL_VERSION = 1
SCHEMA_VERSION = 1


class Form(Enum):
    """How frames are written on a connection: the value is the WebSocket subprotocol. Of those that a client offers, a
    gateway takes the first one here. `READABLE` is for people, and written by `readable` alone; what a client sends
    under it is the same as under `JSON`."""

    PROTO = "khala.v1.proto"
    READABLE = "khala.v2.json"
    JSON = "khala.v1.json"


class Plan(Enum):
    """How a subscription is served up to the head that it found."""

    LIVE = "live"
    REPLAY = "replay"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a topic has been applied, in which lineage. An empty epoch is a stale cursor, never a wildcard.

    `chain` is the chain value of what was applied, 32 bytes; empty if it is not known or the topic has none.
    """

    epoch: str
    applied_seq: int
    chain: bytes = b""


@dataclass(frozen=True, slots=True)
class TopicState:
    """Where a topic stands: lineage, lowest resumable cursor, newest seq.

    `snapshot_available`: it has a snapshot, which every client takes. `snapshot_on_request`: it has one for those
    clients that say that they take it.
    """

    epoch: str
    floor: int
    head: int
    snapshot_available: bool = False
    snapshot_on_request: bool = False


# ------------------------------------------------------------------------------------------------- client to gateway


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of every connection. `token` is empty when it came in the Authorization header."""

    token: str
    device_id: str
    client_build_id: str
    protocol_version: int = PROTOCOL_VERSION
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Start receiving topics, each from its cursor on, or from the start when it has none.

    `takes_snapshots` are those of them of which the client takes any snapshot, also in parts.
    """

    topics: tuple[tuple[str, Cursor | None], ...]
    takes_snapshots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop receiving topics."""

    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A new token of the same session."""

    token: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a Heartbeat with the same nonce."""

    nonce: int


ClientFrame = Hello | Subscribe | Unsubscribe | RefreshToken | Ping


# ------------------------------------------------------------------------------------------------- gateway to client


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answer to Hello. Times are milliseconds since the Unix epoch, by the gateway's clock."""

    connection_id: str
    heartbeat_interval_ms: int
    idle_timeout_ms: int
    max_topics: int
    max_frame_bytes: int
    server_time_ms: int
    token_expire_time_ms: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Answer to one topic of Subscribe; the first event is `from_seq + 1`.

    `chain` is the chain value at `from_seq`, where a snapshot of a topic with a chain comes; else empty.
    """

    topic: str
    epoch: str
    floor: int
    head: int
    plan: Plan
    from_seq: int
    chain: bytes = b""


@dataclass(frozen=True, slots=True)
class Event:
    """One element of a topic, as the source stored it."""

    topic: str
    seq: int
    payload: bytes
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of a topic as of `seq`; events go on at `seq + 1`.

    `part` of `parts`, the first one 1; both are 0 for one that is whole.
    """

    topic: str
    seq: int
    payload: bytes
    schema_version: int = SCHEMA_VERSION
    part: int = 0
    parts: int = 0


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What stood in the topic when it was subscribed, up to `seq`, has been sent."""

    topic: str
    seq: int


@dataclass(frozen=True, slots=True)
class TopicHead:
    """Where a subscribed topic stands, as far as the gateway knows; `source_away`: it can't ask at present."""

    topic: str
    head: int
    epoch: str
    source_away: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The connection lives. `nonce` is that of the Ping that it answers, else 0."""

    heads: tuple[TopicHead, ...]
    server_time_ms: int
    nonce: int = 0


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """Something was refused: one topic, or, with an empty `topic`, the connection, which closes next."""

    topic: str
    reason: str
    message: str
    field: str = ""
    retry_after_ms: int = 0
    stale: TopicState | None = None
    # The topic's chain value at the cursor's seq, if the cursor's is another one.
    chain: bytes = b""
    # Whether an earlier subscription to the topic goes on.
    subscription_stands: bool = False


@dataclass(frozen=True, slots=True)
class Draining:
    """The gateway will close; the client waits that long before it connects again."""

    reconnect_after_ms: int


@dataclass(frozen=True, slots=True)
class UnknownFrame:
    """A frame of a kind that this version does not know: counted and ignored."""

    kind: int


ServerFrame = Welcome | Subscribed | Event | Snapshot | CaughtUp | Heartbeat | ErrorFrame | Draining | UnknownFrame
