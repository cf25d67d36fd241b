"""What a client session takes and what it asks for: the vocabulary between `ClientSession` and its driver."""

from dataclasses import dataclass
from typing import Protocol

from oa_khala.frames import ClientFrame, Cursor
from oa_khala.grants import MAX_GRANTS


@dataclass(frozen=True, slots=True)
class Instant:
    """What a pure machine can't know: a clock that never goes back, in ms, and one random number in [0, 1)."""

    now_ms: int
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class SyncToken:
    """A token from control: its text, what it grants (`oa_khala.grants`), and how long it remains valid.

    `refused` holds topics that were requested and not granted, each with its reason.
    """

    text: str
    topics: frozenset[str]
    expires_in_ms: int
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Named limits of one client. Times in milliseconds."""

    connect_timeout_ms: int = 10_000
    hello_timeout_ms: int = 10_000
    # The connection is dead after this many heartbeat intervals without a frame.
    silent_heartbeats: float = 1.5
    # A new token is requested when this fraction of the old one's life is over.
    refresh_at_fraction: float = 0.8
    # A token that is about to expire is not worth a connection.
    token_margin_ms: int = 5_000
    # A new token is assumed to live at least this long until the gateway says how long it does.
    min_token_life_ms: int = 30_000
    # After this many tokens in a row that gateways refused, the session ends: what gives the tokens is wrong.
    max_refused_tokens: int = 10
    # After this many repairs of one topic without progress, the client asks for it later; after this many of those, it
    # asks another gateway.
    max_repairs: int = 3
    # Maximum size of a snapshot taken in parts, all parts together.
    max_snapshot_bytes: int = 16 << 20
    # Topics, and grants of owners, that the client asks a token for.
    max_topics: int = MAX_GRANTS
    # Topics in one Subscribe frame.
    subscribe_batch: int = 128


class Chains(Protocol):
    """Chain values of topics: what binds a cursor to what was applied."""

    def start(self, topic: str) -> bytes:
        """The value before the topic's first event; empty for a topic without a chain."""
        ...

    def after(self, chain: bytes, payload: bytes) -> bytes:
        """The value after one more event."""
        ...


class NoChains:
    """For a client that doesn't bind its cursors to content."""

    def start(self, topic: str) -> bytes:
        """See Chains."""
        return b""

    def after(self, chain: bytes, payload: bytes) -> bytes:
        """See Chains."""
        return b""


# ------------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection after `delay_ms`; report `connected` or `disconnected` with this `generation`."""

    generation: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Drop the connection (or the attempt) of `generation`. Its later reports are ignored."""

    generation: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send `frame` on the connection of `generation`."""

    generation: int
    frame: ClientFrame


@dataclass(frozen=True, slots=True)
class NeedToken:
    """Get a sync token for `topics`, which may be all of an owner (`oa_khala.grants`); answer with `token` or
    `no_token`. At most one request is outstanding at a time."""

    topics: frozenset[str]


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply one element and persist `cursor`, both or neither. `snapshot`: it replaces the topic's whole state.

    When the store fails, report `rewind` with the cursor that it actually holds. `follows` is the chain value that the
    element continues; empty if it is not known.
    """

    topic: str
    cursor: Cursor
    payload: bytes
    schema_version: int
    snapshot: bool = False
    follows: bytes = b""


@dataclass(frozen=True, slots=True)
class Resync:
    """Drop the state and the cursor of `topic`: it can't be continued and will be sent again from its start."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Live:
    """`topic` has been applied up to the head that it had when it was subscribed."""

    topic: str
    seq: int


@dataclass(frozen=True, slots=True)
class TopicFailed:
    """`topic` can't be obtained and is no longer tried."""

    topic: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """The session has stopped because retrying can't help."""

    reason: str
    message: str


Command = Connect | Disconnect | Send | NeedToken | Apply | Resync | Live | TopicFailed | SessionFailed
