"""The values of all frames in both directions, as the sessions see them. `wire` maps them to bytes and back."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

PROTOCOL_VERSION = 1
SCHEMA_VERSION = 1


class Form(StrEnum):
    """How frames are written on a connection: the value is the WebSocket subprotocol. A gateway
    takes the first one in this order that the client offers. `READABLE` is for people, and only `readable` writes it; a
    client sends the same under it as under `JSON`."""

    PROTO = "khala.v1.proto"
    READABLE = "khala.v2.json"
    JSON = "khala.v1.json"


class Plan(Enum):
    """How a subscription is served up to the head at the time of subscribing."""

    LIVE = "live"
    REPLAY = "replay"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a topic has been applied, and in which lineage. An empty epoch is a stale cursor, never a wildcard.

    `chain` is the chain value at `applied_seq`, 32 bytes; empty if it is not known or the topic has none.
    """

    epoch: str
    applied_seq: int
    chain: bytes = b""


@dataclass(frozen=True, slots=True)
class TopicState:
    """Where a topic stands: lineage, lowest resumable cursor, newest seq.

    `snapshot_available`: it has a snapshot that every client takes. `snapshot_on_request`: it has one for clients that
    say that they take it.
    """

    epoch: str
    floor: int
    head: int
    snapshot_available: bool = False
    snapshot_on_request: bool = False


# ------------------------------------------------------------------------------------------------- client to gateway


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of every connection. `token` is empty when the token came in the Authorization header."""

    token: str
    device_id: str
    client_build_id: str
    protocol_version: int = PROTOCOL_VERSION
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Start receiving topics, each from its cursor on, or from its start when it has no cursor.

    `takes_snapshots` are the topics of which the client takes any snapshot, also in parts.
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

    `chain` is the chain value at `from_seq` if a snapshot of a topic with a chain follows; else empty.
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
    """State of a topic as of `seq`; events continue at `seq + 1`.

    It is `part` of `parts`, counted from 1; both are 0 for a whole snapshot.
    """

    topic: str
    seq: int
    payload: bytes
    schema_version: int = SCHEMA_VERSION
    part: int = 0
    parts: int = 0


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that was in the topic when it was subscribed, up to `seq`, has been sent."""

    topic: str
    seq: int


class TopicHead(NamedTuple):
    """Where a subscribed topic stands, as far as the gateway knows; `source_away`: the gateway can't ask at present."""

    topic: str
    head: int
    epoch: str
    source_away: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The connection is alive. `nonce` is that of the Ping that it answers, else 0."""

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
    # The topic's chain value at the cursor's seq, if it differs from the cursor's.
    chain: bytes = b""
    # Whether an earlier subscription to the topic continues.
    subscription_stands: bool = False


@dataclass(frozen=True, slots=True)
class Draining:
    """The gateway will close; the client waits `reconnect_after_ms` before it connects again."""

    reconnect_after_ms: int


@dataclass(frozen=True, slots=True)
class UnknownFrame:
    """A frame of a kind that this version does not know: counted and ignored."""

    kind: int


ServerFrame = Welcome | Subscribed | Event | Snapshot | CaughtUp | Heartbeat | ErrorFrame | Draining | UnknownFrame
