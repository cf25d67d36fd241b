"""One connection, seen by the gateway: what a client may say when, and what it is answered.

The gateway reports what happens and carries out the commands that each call returns, in order; it calls `timer` no
later than at `wake_at_ms`. All times are milliseconds since the Unix epoch by a clock that never goes back.

Every subscription carries `expected`, anchored at its cursor + 1 from the moment of SUBSCRIBED: whatever is handed to
the client is asserted to start exactly there. A check that began with the first frame that happens to come would
accept a lost one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from oa_base.clock import MS_NS
from oa_base.rate import Rate, TokenBucket
from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.admission import Grant, admit, check_device, check_owner, check_same_session
from oa_khala.cursors import STALE_REASONS, Stale, plan_subscription
from oa_khala.frames import Cursor, TopicState
from oa_khala.server_commands import (
    Attach,
    CloseConnection,
    Command,
    ConfirmCursor,
    Detach,
    SendFrame,
    Serve,
    ServerLimits,
    VerifyToken,
)
from oa_khala.topics import Topic

_NEVER = 1 << 62
_CLIENT_BUILD = re.compile(r"[A-Za-z0-9._-]{1,48}/[A-Za-z0-9._+-]{1,47}")
# A reason that names no close code of its own, but ends a connection all the same.
_DEFAULT_CLOSE_CODE = 1008


class DeliveryBroken(AssertionError):
    """The gateway was about to hand over something else than the next frame: a defect, and the connection's end."""


class State(Enum):
    """Where a connection stands."""

    AWAIT_HELLO = "await_hello"
    VERIFYING = "verifying"  # Hello came, its token is being verified
    OPEN = "open"
    REFRESHING = "refreshing"  # open, and a new token is being verified
    CLOSED = "closed"


@dataclass(slots=True)
class Subscription:
    """One topic of a connection. `expected` is 0 until it is served, then the next seq to hand over."""

    topic: Topic
    cursor: Cursor | None
    attachment: int
    # Whether the source has said that the cursor stands for what it has; one without a chain says nothing to compare.
    confirmed: bool
    epoch: str = ""
    expected: int = 0
    # Head at the time of SUBSCRIBED, until CAUGHT_UP has been said; then -1.
    catch_up_to: int = -1


class ServerSession:
    """See the module. `head_of` tells the newest deliverable seq of a topic that is being served."""

    def __init__(self, connection_id: str, limits: ServerLimits, head_of: Callable[[str], int], now_ms: int) -> None:
        self.connection_id = connection_id
        self.limits = limits
        self.state = State.AWAIT_HELLO
        self.grant: Grant | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.close_reason = ""
        self._head_of = head_of
        self._now_ms = now_ms
        self._hello_deadline_ms = now_ms + limits.hello_deadline_ms
        self._idle_deadline_ms = now_ms + limits.idle_timeout_ms
        self._heartbeat_at_ms = _NEVER
        self._blocked_deadline_ms = _NEVER
        self._drain_at_ms = _NEVER
        self._attachments = 0
        self._device_id = ""
        self._pipelined: list[frames.ClientFrame] = []
        self._subscribe_rate = TokenBucket(
            Rate.per_second(limits.subscribe_per_s, limits.subscribe_burst), now_ms * MS_NS
        )
        self._out: list[Command] = []

    # --------------------------------------------------------------------------------------------- the client

    def frame(self, frame: frames.ClientFrame, now_ms: int) -> list[Command]:
        """A valid frame came. What the table doesn't have is a protocol violation."""
        self.heard(now_ms)
        if self.state in (State.VERIFYING, State.REFRESHING):
            self._pipeline(frame)
        elif self.state is not State.CLOSED:
            handler = _TABLE.get((self.state, type(frame)))
            if handler is None:
                self._close(_violation(self.state, frame))
            else:
                handler(self, frame)
        return self._commands()

    def refused(self, refusal: Refusal, now_ms: int) -> list[Command]:
        """The connection can't go on: a malformed frame, a replayed token, a dead upstream. ERROR and close."""
        self._now_ms = now_ms
        self._close(refusal)
        return self._commands()

    def heard(self, now_ms: int) -> None:
        """Anything came from the client, a WebSocket ping or pong too."""
        self._now_ms = now_ms
        self._idle_deadline_ms = now_ms + self.limits.idle_timeout_ms

    def blocked(self, blocked: bool, now_ms: int) -> None:
        """The client can't take anything at present, or can again."""
        self._blocked_deadline_ms = now_ms + self.limits.slow_consumer_ms if blocked else _NEVER

    # --------------------------------------------------------------------------------------------- answers

    def token_accepted(self, grant: Grant, now_ms: int) -> list[Command]:
        """Answer to VerifyToken: what the token grants."""
        self._now_ms = now_ms
        try:
            if self.state is State.VERIFYING:
                check_device(grant, self._device_id)
                self._welcome(grant)
            elif self.state is State.REFRESHING and self.grant is not None:
                check_same_session(self.grant, grant)
                self._refresh(grant)
        except Refusal as refusal:
            self._close(refusal)
        self._take_pipelined()
        return self._commands()

    def token_refused(self, refusal: Refusal, now_ms: int) -> list[Command]:
        """Answer to VerifyToken: the token is no good."""
        return self.refused(refusal, now_ms)

    def topic_ready(
        self, topic: str, attachment: int, state: TopicState, owner_user_id: str, owner_org_id: str, now_ms: int
    ) -> list[Command]:
        """Answer to Attach: where the feed stands at this moment, and whose the topic is."""
        self._now_ms = now_ms
        subscription = self._attached(topic, attachment)
        if subscription is None or self.grant is None:
            return self._commands()
        try:
            check_owner(self.grant, owner_user_id, owner_org_id)
        except Refusal as refusal:
            self._refuse_topic(topic, refusal)
            return self._commands()
        self._serve(subscription, state)
        return self._commands()

    def cursor_confirmed(self, topic: str, attachment: int, state: TopicState, now_ms: int) -> list[Command]:
        """Answer to ConfirmCursor; `state` is where the feed stands at this moment."""
        self._now_ms = now_ms
        subscription = self._attached(topic, attachment)
        if subscription is not None:
            subscription.confirmed = True
            self._serve(subscription, state)
        return self._commands()

    def cursor_refused(
        self, topic: str, attachment: int, refusal: Refusal, state: TopicState, chain: bytes, now_ms: int
    ) -> list[Command]:
        """Answer to ConfirmCursor: stale, or not to be confirmed now. `chain` is the source's own, if it differs."""
        self._now_ms = now_ms
        subscription = self._attached(topic, attachment)
        if subscription is not None and refusal.reason in STALE_REASONS:
            self._refuse_stale(subscription, refusal.reason, state, chain)
        elif subscription is not None:
            self._refuse_topic(topic, refusal)
        return self._commands()

    def topic_refused(self, topic: str, attachment: int, refusal: Refusal, now_ms: int) -> list[Command]:
        """Answer to Attach, or later news: the topic can't be served (any more)."""
        self._now_ms = now_ms
        if self._attached(topic, attachment) is not None:
            self._refuse_topic(topic, refusal)
        return self._commands()

    def topic_stale(self, topic: str, attachment: int, reason: str, state: TopicState, now_ms: int) -> list[Command]:
        """The lineage that is being delivered has ended, or its floor has passed the subscription."""
        self._now_ms = now_ms
        subscription = self._attached(topic, attachment)
        if subscription is not None:
            self._refuse_stale(subscription, reason, state)
        return self._commands()

    def delivered(self, topic: str, first_seq: int, count: int) -> list[Command]:
        """`count` events from `first_seq` on are handed to the client. Raises DeliveryBroken if those aren't next."""
        subscription = self.subscriptions[topic]
        if first_seq != subscription.expected or count < 1:
            raise DeliveryBroken(f"{topic}: {count} frame(s) from {first_seq}, expected {subscription.expected}")
        subscription.expected += count
        if -1 < subscription.catch_up_to < subscription.expected:
            self._caught_up(subscription)
            return self._commands()
        return []

    # --------------------------------------------------------------------------------------------- time

    def drain(self, delay_ms: int, now_ms: int) -> list[Command]:
        """The gateway goes away: tell the client, and close in `delay_ms`."""
        self._now_ms = now_ms
        if self.state is State.CLOSED or self._drain_at_ms != _NEVER:
            return self._commands()
        self._drain_at_ms = now_ms + delay_ms
        if self.state is not State.AWAIT_HELLO:
            self._send(frames.Draining(delay_ms))
        return self._commands()

    def timer(self, now_ms: int) -> list[Command]:
        """Time has passed; harmless at any time, due at `wake_at_ms`."""
        self._now_ms = now_ms
        for deadline_ms, refusal in self._deadlines():
            if now_ms >= deadline_ms:
                self._close(refusal)
                return self._commands()
        if now_ms >= self._heartbeat_at_ms and self.state is not State.CLOSED:
            self._heartbeat_at_ms = now_ms + self.limits.heartbeat_interval_ms
            self._send(self._heartbeat(0))
        return self._commands()

    @property
    def wake_at_ms(self) -> int:
        """When `timer` is due; far away once the session is closed."""
        if self.state is State.CLOSED:
            return _NEVER
        return min(self._heartbeat_at_ms, *(deadline_ms for deadline_ms, _ in self._deadlines()))

    def _deadlines(self) -> tuple[tuple[int, Refusal], ...]:
        if self.state is State.CLOSED:
            return ()
        expires_at_ms = self.grant.expires_at_ms if self.grant is not None else _NEVER
        return (
            (self._hello_deadline_ms, _HELLO_TIMEOUT),
            (expires_at_ms, _REAUTH_REQUIRED),
            (self._blocked_deadline_ms, _SLOW_CONSUMER),
            (self._idle_deadline_ms, _IDLE_TIMEOUT),
            (self._drain_at_ms, _DRAINING),
        )

    # --------------------------------------------------------------------------------------------- the table's rows

    def _hello(self, frame: frames.Hello) -> None:
        refusal = _incompatible(frame)
        if refusal is not None:
            self._close(refusal)
            return
        self.state = State.VERIFYING
        self._device_id = frame.device_id
        self._out.append(VerifyToken(frame.token))

    def _subscribe(self, frame: frames.Subscribe) -> None:
        assert self.grant is not None
        for index, (name, cursor) in enumerate(frame.topics):
            self._drop(name)
            try:
                topic = admit(self.grant, name, field=f"subscribe.topics[{index}].topic")
                _check_chain(topic, cursor, field=f"subscribe.topics[{index}].cursor.chain")
                self._check_room()
            except Refusal as refusal:
                self._send(_error(refusal, name))
                continue
            self._attachments += 1
            confirmed = cursor is None or not cursor.chain
            self.subscriptions[name] = Subscription(topic, cursor, self._attachments, confirmed)
            self._out.append(Attach(topic, self._attachments))

    def _unsubscribe(self, frame: frames.Unsubscribe) -> None:
        for name in frame.topics:
            self._drop(name)

    def _refresh_token(self, frame: frames.RefreshToken) -> None:
        self.state = State.REFRESHING
        self._out.append(VerifyToken(frame.token))

    def _ping(self, frame: frames.Ping) -> None:
        self._send(self._heartbeat(frame.nonce))

    # --------------------------------------------------------------------------------------------- inside

    def _pipeline(self, frame: frames.ClientFrame) -> None:
        if len(self._pipelined) >= self.limits.max_pipelined_frames:
            self._close(Refusal("protocol_violation", "too many frames while the token was being verified"))
        else:
            self._pipelined.append(frame)

    def _take_pipelined(self) -> None:
        while self._pipelined and self.state in (State.AWAIT_HELLO, State.OPEN):
            frame = self._pipelined.pop(0)
            handler = _TABLE.get((self.state, type(frame)))
            if handler is None:
                self._close(_violation(self.state, frame))
            else:
                handler(self, frame)

    def _welcome(self, grant: Grant) -> None:
        limits = self.limits
        self.state = State.OPEN
        self.grant = grant
        self._hello_deadline_ms = _NEVER
        self._heartbeat_at_ms = self._now_ms + limits.heartbeat_interval_ms
        self._send(
            frames.Welcome(
                connection_id=self.connection_id,
                heartbeat_interval_ms=limits.heartbeat_interval_ms,
                idle_timeout_ms=limits.idle_timeout_ms,
                max_topics=limits.max_topics,
                max_frame_bytes=limits.max_frame_bytes,
                server_time_ms=self._now_ms,
                token_expire_time_ms=grant.expires_at_ms,
            )
        )

    def _refresh(self, grant: Grant) -> None:
        self.state = State.OPEN
        self.grant = grant
        for name in list(self.subscriptions):
            try:
                admit(grant, name)
            except Refusal as refusal:
                self._refuse_topic(name, refusal)

    def _check_room(self) -> None:
        wait_ms = self._subscribe_rate.take(self._now_ms * MS_NS).wait_ms
        if wait_ms:
            raise Refusal("rate_limited", "too many subscriptions a second; wait", retry_after_ms=wait_ms)
        if len(self.subscriptions) >= self.limits.max_topics:
            message = f"a connection holds at most {self.limits.max_topics} topics; unsubscribe some"
            raise Refusal("too_many_topics", message)

    def _attached(self, topic: str, attachment: int) -> Subscription | None:
        subscription = self.subscriptions.get(topic)
        return subscription if subscription is not None and subscription.attachment == attachment else None

    def _serve(self, subscription: Subscription, state: TopicState) -> None:
        plan = plan_subscription(subscription.cursor, state, subscription.topic.topic_class.replay_budget)
        if isinstance(plan, Stale):
            self._refuse_stale(subscription, plan.reason, state)
            return
        name = str(subscription.topic)
        if subscription.cursor is not None and not subscription.confirmed:
            self._out.append(ConfirmCursor(name, subscription.attachment, subscription.cursor))
            return
        subscription.epoch = state.epoch
        subscription.expected = plan.from_seq + 1
        subscription.catch_up_to = state.head
        self._send(frames.Subscribed(name, state.epoch, state.floor, state.head, plan.plan, plan.from_seq))
        if plan.from_seq == state.head:
            self._caught_up(subscription)
        self._out.append(Serve(name, subscription.expected))

    def _caught_up(self, subscription: Subscription) -> None:
        self._send(frames.CaughtUp(str(subscription.topic), subscription.catch_up_to))
        subscription.catch_up_to = -1

    def _refuse_stale(self, subscription: Subscription, reason: str, state: TopicState, chain: bytes = b"") -> None:
        name, cursor = str(subscription.topic), subscription.cursor
        text = "the cursor can't be continued"
        if chain and cursor is not None:
            text = (
                f"the topic's chain at seq {cursor.applied_seq} is {chain.hex()}, the cursor's is {cursor.chain.hex()}"
            )
        refusal = Refusal(reason, f"{text}; drop this topic's state and subscribe without one")
        self._drop(name)
        self._send(_error(refusal, name, state, chain))

    def _refuse_topic(self, name: str, refusal: Refusal) -> None:
        self._drop(name)
        self._send(_error(refusal, name))

    def _drop(self, name: str) -> None:
        if self.subscriptions.pop(name, None) is not None:
            self._out.append(Detach(name))

    def _heartbeat(self, nonce: int) -> frames.Heartbeat:
        served = ((name, entry) for name, entry in self.subscriptions.items() if entry.expected > 0)
        heads = tuple(frames.TopicHead(name, self._head_of(name), entry.epoch) for name, entry in served)
        return frames.Heartbeat(heads, self._now_ms, nonce)

    def _close(self, refusal: Refusal) -> None:
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.close_reason = refusal.reason
        self._pipelined.clear()
        for name in list(self.subscriptions):
            self._drop(name)
        if refusal.reason != "draining":
            self._send(_error(refusal, ""))
        self._out.append(CloseConnection(refusal.info.close_code or _DEFAULT_CLOSE_CODE, refusal.reason))

    def _send(self, frame: frames.ServerFrame) -> None:
        self._out.append(SendFrame(frame))

    def _commands(self) -> list[Command]:
        commands, self._out = self._out, []
        return commands


# What a client may say in which state. Anything that is not in this map is a protocol violation.
_TABLE: dict[tuple[State, type], Callable[..., None]] = {
    (State.AWAIT_HELLO, frames.Hello): ServerSession._hello,
    (State.OPEN, frames.Subscribe): ServerSession._subscribe,
    (State.OPEN, frames.Unsubscribe): ServerSession._unsubscribe,
    (State.OPEN, frames.RefreshToken): ServerSession._refresh_token,
    (State.OPEN, frames.Ping): ServerSession._ping,
}

_HELLO_TIMEOUT = Refusal("hello_timeout", "no Hello came in time; connect again and send it first")
_REAUTH_REQUIRED = Refusal("reauth_required", "the token has expired; get a new one and connect again")
_SLOW_CONSUMER = Refusal("slow_consumer", "the connection could not take what was delivered; connect again")
_IDLE_TIMEOUT = Refusal("idle_timeout", "nothing was heard of the client for too long; connect again")
_DRAINING = Refusal("draining", "the gateway goes away; connect again")


def _violation(state: State, frame: frames.ClientFrame) -> Refusal:
    name = type(frame).__name__
    first = "Hello must be the first frame" if state is State.AWAIT_HELLO else f"{name} is not allowed here"
    return Refusal("protocol_violation", first, field="body")


def _incompatible(hello: frames.Hello) -> Refusal | None:
    if not _CLIENT_BUILD.fullmatch(hello.client_build_id):
        return Refusal("invalid_client_build", "a client build id reads name/version", field="hello.client_build_id")
    if hello.protocol_version != frames.PROTOCOL_VERSION:
        message = f"this gateway speaks protocol version {frames.PROTOCOL_VERSION}"
        return Refusal("unsupported_protocol_version", message, field="hello.protocol_version")
    if hello.schema_version < frames.SCHEMA_VERSION:
        message = f"this gateway sends schema version {frames.SCHEMA_VERSION}"
        return Refusal("unsupported_schema_version", message, field="hello.schema_version")
    return None


def _check_chain(topic: Topic, cursor: Cursor | None, field: str) -> None:
    if cursor is not None and cursor.chain and not topic.topic_class.chained:
        raise Refusal("invalid_value", "topics of this class have no chain; leave it empty", field=field)


def _error(refusal: Refusal, topic: str, state: TopicState | None = None, chain: bytes = b"") -> frames.ErrorFrame:
    return frames.ErrorFrame(
        topic, refusal.reason, refusal.message, refusal.field, refusal.retry_after_ms, state, chain
    )
