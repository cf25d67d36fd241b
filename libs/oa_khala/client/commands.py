"""What a client session takes and what it asks for: the vocabulary between `ClientSession` and whoever drives it."""

from dataclasses import dataclass
from typing import Protocol

from oa_khala.frames import ClientFrame, Cursor


@dataclass(frozen=True, slots=True)
class Instant:
    """What a pure machine can't know: a clock that never goes back, in ms, and one random number in [0, 1)."""

    now_ms: int
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class SyncToken:
    """A token from control: its text, what it grants (`oa_khala.grants`), and for how long it is valid from now on.

    `refused` holds topics that were asked for and not granted, each with its reason.
    """

    text: str
    topics: frozenset[str]
    expires_in_ms: int
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Named limits of one client. All in milliseconds, but the counts."""

    connect_timeout_ms: int = 10_000
    hello_timeout_ms: int = 10_000
    # The connection is dead after so many heartbeat intervals without a frame.
    silent_heartbeats: float = 2.5
    # A new token is asked for when so much of the old one's life is over.
    refresh_at_fraction: float = 0.8
    # A token that is about to expire is not worth a connection.
    token_margin_ms: int = 5_000
    # A new token is believed to live at least so long, until the gateway says how long it does.
    min_token_life_ms: int = 30_000
    # After so many repairs of one topic without progress it is asked for later; after so many of those, elsewhere.
    max_repairs: int = 3
    # Largest snapshot that is taken in parts, all of them together.
    max_snapshot_bytes: int = 16 << 20
    # Topics in one Subscribe frame.
    subscribe_batch: int = 128


class Chains(Protocol):
    """Chain values of topics: what binds a cursor to what was applied."""

    def start(self, topic: str) -> bytes:
        """Before the topic's first event; empty for a topic without a chain."""
        ...

    def after(self, chain: bytes, payload: bytes) -> bytes:
        """After one more event."""
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
    """Drop the connection (or the attempt) of `generation`. Nothing it still reports will be heard."""

    generation: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send `frame` on the connection of `generation`."""

    generation: int
    frame: ClientFrame


@dataclass(frozen=True, slots=True)
class NeedToken:
    """Get a sync token for `topics`, or all of an owner (`oa_khala.grants`); answer with `token` or
    `no_token`. At most one is asked for at a time."""

    topics: frozenset[str]


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply one element and persist `cursor`, both or neither. `snapshot`: it replaces the topic's whole state.

    When the store fails, report `rewind` with the cursor that is really there. `follows` is the chain value that the
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
    """Drop the state and the cursor of `topic`: it can't be continued, and is sent again from its start."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Live:
    """`topic` has been applied up to the head that it had when it was subscribed."""

    topic: str
    seq: int


@dataclass(frozen=True, slots=True)
class TopicFailed:
    """`topic` can't be had and is no longer tried."""

    topic: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """Trying again can't help: the session has stopped."""

    reason: str
    message: str


Command = Connect | Disconnect | Send | NeedToken | Apply | Resync | Live | TopicFailed | SessionFailed
