"""One connection as the gateway sees it: what a client may say when, and what the answer is.

The gateway reports what happens and carries out the commands that each call returns, in order; it reports what happens
to topics to `subscriptions`. It calls `timer` at `wake_at_ms` or soon after. All times are milliseconds since the
Unix epoch by a clock that never goes back.
"""

import re

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.server.admission import Grant
from oa_khala.server.commands import CloseConnection, Command, SendFrame, StartHeartbeats, VerifyToken
from oa_khala.server.deadlines import NEVER, Deadlines
from oa_khala.server.limits import SessionLimits
from oa_khala.server.states import State, expects, next_state
from oa_khala.server.subscriptions import Standing, Subscriptions, error_frame, heads_of
from oa_khala.server.tokens import Tokens

CLIENT_BUILD = re.compile(r"[A-Za-z0-9._-]{1,48}/[A-Za-z0-9._+-]{1,47}")
# For a reason that has no close code of its own but still ends a connection.
_DEFAULT_CLOSE_CODE = 1008


class ServerSession:
    """See the module."""

    __slots__ = (
        "_deadlines",
        "_standing",
        "_tokens",
        "_waiting",
        "connection_id",
        "limits",
        "state",
        "subscriptions",
    )

    def __init__(self, connection_id: str, limits: SessionLimits, standing: Standing, now_ms: int) -> None:
        self.connection_id = connection_id
        self.limits = limits
        self.state = State.AWAIT_HELLO
        self.subscriptions = Subscriptions(limits, now_ms)
        self._standing = standing
        self._tokens = Tokens()
        self._deadlines = Deadlines(limits, now_ms)
        # Frames that wait while a token is verified.
        self._waiting: list[frames.ClientFrame] = []

    def frame(self, frame: frames.ClientFrame, now_ms: int) -> list[Command]:
        """Handle a valid frame. A frame that the table of states doesn't have is a protocol violation."""
        self.heard(now_ms)
        if self.state is State.CLOSED:
            return []
        if not expects(self.state, Grant):
            return self._take(frame, now_ms)
        if self.is_full:
            message = "too many frames while the token was being verified; send fewer before the answer to Hello"
            return self.refused(Refusal("protocol_violation", message))
        self._waiting.append(frame)
        return []

    @property
    def is_full(self) -> bool:
        """Whether as many frames wait for the answer to a token as may. Until it comes, `frame` is not to be called."""
        return len(self._waiting) >= self.limits.max_pipelined_frames

    def heard(self, now_ms: int) -> None:
        """Note that anything came from the client, including a WebSocket ping or pong."""
        self._deadlines.heard(now_ms)

    def blocked(self, blocked: bool, now_ms: int) -> None:
        """Note that the client has fallen behind what it could have taken (`blocked`), or has caught up."""
        self._deadlines.blocked(blocked, now_ms)

    def taken(self, total_bytes: int, now_ms: int) -> None:
        """Note how many bytes the client has taken since it connected. It matters, and has to be said before each
        `timer`, while the client is blocked."""
        self._deadlines.taken(total_bytes, now_ms)

    def token_accepted(self, grant: Grant, now_ms: int) -> list[Command]:
        """Answer to VerifyToken: what the token grants."""
        if not expects(self.state, Grant):
            return []
        try:
            self._tokens.accept(grant, now_ms)
        except Refusal as refusal:
            return self.refused(refusal)
        out = self._welcome(grant, now_ms) if self.state is State.VERIFYING else []
        self.state = next_state(self.state, grant)
        self._deadlines.granted(grant.expires_at_ms)
        out += self.subscriptions.granted(grant)
        while self._waiting and self.state is State.OPEN:
            out += self._take(self._waiting.pop(0), now_ms)
        return out

    def refused(self, refusal: Refusal) -> list[Command]:
        """End the connection with ERROR and close: a malformed frame, a token that is invalid or used twice."""
        if self.state is State.CLOSED:
            return []
        self.state = next_state(self.state, refusal)
        self._waiting.clear()
        out = self.subscriptions.end_all()
        if refusal.reason != "draining":
            out.append(SendFrame(error_frame(refusal, "")))
        return [*out, CloseConnection(refusal.info.close_code or _DEFAULT_CLOSE_CODE, refusal.reason)]

    def holds(self, grant: Grant) -> bool:
        """Whether the connection is open under `grant`."""
        return self._tokens.grant is grant and self.state is not State.CLOSED

    def drain(self, delay_ms: int, now_ms: int) -> list[Command]:
        """Tell the client that the gateway is going away, and close in `delay_ms`."""
        if self.state is State.CLOSED or not self._deadlines.drain(delay_ms, now_ms):
            return []
        return [SendFrame(frames.Draining(delay_ms))] if self.state is not State.AWAIT_HELLO else []

    def timer(self, now_ms: int) -> list[Command]:
        """Do what the passing of time requires. Harmless at any time, due at `wake_at_ms`."""
        if self.state is State.CLOSED:
            return []
        refusal = self._deadlines.end(now_ms)
        return self.refused(refusal) if refusal is not None else []

    @property
    def wake_at_ms(self) -> int:
        """When `timer` is due; far away once the session is closed."""
        return NEVER if self.state is State.CLOSED else self._deadlines.wake_at_ms

    # --------------------------------------------------------------------------------------------- inside

    def _take(self, frame: frames.ClientFrame, now_ms: int) -> list[Command]:
        try:
            self.state = next_state(self.state, frame)
            return self._answer(frame, now_ms)
        except Refusal as refusal:
            return self.refused(refusal)

    def _answer(self, frame: frames.ClientFrame, now_ms: int) -> list[Command]:
        match frame:
            case frames.Hello():
                _check_compatible(frame)
                self._tokens.device_id = frame.device_id
                return [VerifyToken(frame.token)]
            case frames.RefreshToken():
                return [VerifyToken(frame.token)]
            case frames.Subscribe():
                return self.subscriptions.subscribe(frame, now_ms)
            case frames.Unsubscribe():
                return self.subscriptions.unsubscribe(frame.topics)
            case frames.Ping():
                heads = heads_of(self.subscriptions.served, self._standing)
                return [SendFrame(frames.Heartbeat(heads, now_ms, frame.nonce)), StartHeartbeats()]

    def _welcome(self, grant: Grant, now_ms: int) -> list[Command]:
        limits = self.limits
        self._deadlines.opened()
        welcome = frames.Welcome(
            connection_id=self.connection_id,
            heartbeat_interval_ms=limits.heartbeat_interval_ms,
            idle_timeout_ms=limits.idle_timeout_ms,
            max_topics=limits.max_topics,
            max_frame_bytes=limits.max_frame_bytes,
            server_time_ms=now_ms,
            token_expire_time_ms=grant.expires_at_ms,
        )
        return [SendFrame(welcome), StartHeartbeats()]


def _check_compatible(hello: frames.Hello) -> None:
    if not CLIENT_BUILD.fullmatch(hello.client_build_id):
        raise Refusal("invalid_client_build", "a client build id must read name/version", field="hello.client_build_id")
    if hello.protocol_version != frames.PROTOCOL_VERSION:
        message = f"this gateway speaks protocol version {frames.PROTOCOL_VERSION}; use a client that speaks it"
        raise Refusal("unsupported_protocol_version", message, field="hello.protocol_version")
    if hello.schema_version < frames.SCHEMA_VERSION:
        message = f"this gateway sends schema version {frames.SCHEMA_VERSION}; use a client that reads it"
        raise Refusal("unsupported_schema_version", message, field="hello.schema_version")
