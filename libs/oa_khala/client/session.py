"""The client half of Khala, across any number of connections: what is applied is exactly the topic, in order, once.

Whoever drives it (`oa_client` on asyncio, a browser, the simulation) reports what happened and carries out the
commands that each call returns, in order:

    start · connected · frame · disconnected · timer · token · no_token · suspended · resumed · rewind · stop

and calls `timer` no later than at `wake_at_ms`. Every connection has a generation; what a connection of an earlier
generation reports is dropped, so a late socket can't disturb the present one.
"""

from collections.abc import Iterable
from enum import Enum

from oa_base.backoff import RECONNECT
from oa_base.catalogue import ClientAction
from oa_khala.client.commands import (
    Chains,
    ClientLimits,
    Command,
    Connect,
    Disconnect,
    Instant,
    NeedToken,
    NoChains,
    Resync,
    Send,
    SessionFailed,
    SyncToken,
    TopicFailed,
)
from oa_khala.client.topics import ClientTopic, Next, Phase, action_of
from oa_khala.frames import (
    CaughtUp,
    Cursor,
    Draining,
    ErrorFrame,
    Event,
    Heartbeat,
    Hello,
    Ping,
    RefreshToken,
    ServerFrame,
    Snapshot,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Welcome,
)


class State(Enum):
    """Where the session stands."""

    IDLE = "idle"  # not started
    NO_TOKEN = "no_token"  # waiting for a token to connect with
    CONNECTING = "connecting"  # Connect has been asked for
    GREETING = "greeting"  # Hello is out
    OPEN = "open"  # WELCOME came
    SUSPENDED = "suspended"
    STOPPED = "stopped"


_CONNECTED = frozenset({State.GREETING, State.OPEN})
_RUNNING = frozenset({State.NO_TOKEN, State.CONNECTING, State.GREETING, State.OPEN})
# A connection that ends for a reason with one of these actions is not tried again.
_FATAL = frozenset({ClientAction.FIX_REQUEST, ClientAction.GIVE_UP, ClientAction.UPGRADE, ClientAction.STOP_WORK})
_NEVER = 1 << 62


class ClientSession:
    """See the module. `state`, `generation`, `wake_at_ms`, `cursor()` and `unknown_frames` may be read at any time."""

    def __init__(
        self,
        device_id: str,
        client_build_id: str,
        limits: ClientLimits | None = None,
        chains: Chains | None = None,
    ) -> None:
        """`chains` binds cursors to what was applied; without it they are numbers only."""
        self.state = State.IDLE
        self.generation = 0
        self.unknown_frames = 0
        self.limits = limits or ClientLimits()
        self._device_id = device_id
        self._client_build_id = client_build_id
        self._chains = chains or NoChains()
        self._topics: dict[str, ClientTopic] = {}
        self._token: SyncToken | None = None
        self._token_ends_ms = 0
        self._token_sent = ""
        self._token_asked = False
        self._token_wanted: frozenset[str] = frozenset()
        self._token_attempts = 0
        self._token_retry_at_ms = _NEVER
        self._refresh_at_ms = _NEVER
        self._attempts = 0
        self._not_before_ms = 0
        self._deadline_ms = _NEVER
        self._ping_at_ms = _NEVER
        self._ping_every_ms = 0
        self._silence_limit_ms = 0
        self._nonce = 0
        self._end_reason = ""
        self._out: list[Command] = []

    # --------------------------------------------------------------------------------------------- what one wants

    def start(self, at: Instant) -> list[Command]:
        """Begin: connect as soon as there is a token."""
        if self.state is State.IDLE:
            self._connect(at)
        return self._commands()

    def stop(self) -> list[Command]:
        """End for good."""
        self._drop_connection()
        self.state = State.STOPPED
        return self._commands()

    def subscribe(self, topic: str, cursor: Cursor | None, at: Instant) -> list[Command]:
        """Follow `topic` from the persisted `cursor` on, or from its start. Once followed, a second call is ignored."""
        known = self._topics.get(topic)
        if known is None or known.phase is Phase.FAILED:
            self._topics[topic] = ClientTopic(topic, cursor, self._chains)
            if self.state is State.NO_TOKEN:
                self._need_token()
            self._ask([topic], at)
        return self._commands()

    def unsubscribe(self, topic: str) -> list[Command]:
        """Stop following `topic`; its cursor stays persisted."""
        known = self._topics.pop(topic, None)
        if known is not None and self.state is State.OPEN and known.phase is not Phase.FAILED:
            self._send(Unsubscribe((topic,)))
        return self._commands()

    def cursor(self, topic: str) -> Cursor | None:
        """How far `topic` has been handed out to be applied."""
        known = self._topics.get(topic)
        return known.cursor if known else None

    def suspended(self) -> list[Command]:
        """The device goes to sleep or offline: drop the connection and wait for `resumed`."""
        if self.state in _RUNNING:
            self._drop_connection()
            self.state = State.SUSPENDED
        return self._commands()

    def resumed(self, at: Instant) -> list[Command]:
        """The device is back: connect at once."""
        if self.state is State.SUSPENDED:
            self._attempts = 0
            self._connect(at)
        return self._commands()

    # --------------------------------------------------------------------------------------------- what happens

    def connected(self, generation: int, at: Instant) -> list[Command]:
        """The connection of `generation` is open: say Hello."""
        if generation == self.generation and self.state is State.CONNECTING and self._token is not None:
            self.state = State.GREETING
            self._deadline_ms = at.now_ms + self.limits.hello_timeout_ms
            self._token_sent = self._token.text
            self._send(Hello(self._token.text, self._device_id, self._client_build_id))
        return self._commands()

    def disconnected(
        self, generation: int, at: Instant, reason: str = "", message: str = "", retry_after_ms: int = 0
    ) -> list[Command]:
        """The connection of `generation` has ended or could not be made.

        `reason` is the catalogue's, where the driver knows one (an HTTP refusal of the handshake, a close code).
        """
        if generation == self.generation and self.state in _RUNNING and self.state is not State.NO_TOKEN:
            self._ended(at, self._end_reason or reason, message, retry_after_ms)
        return self._commands()

    def frame(self, generation: int, frame: ServerFrame, at: Instant) -> list[Command]:
        """A frame came on the connection of `generation`."""
        if generation != self.generation or self.state not in _CONNECTED:
            return self._commands()
        if self.state is State.OPEN:
            self._deadline_ms = at.now_ms + self._silence_limit_ms
        match frame:
            case Welcome():
                self._welcome(frame, at)
            case Event() | Snapshot() | Subscribed() | CaughtUp():
                self._topic_frame(frame, at)
            case Heartbeat():
                self._heartbeat(frame, at)
            case ErrorFrame():
                self._error(frame, at)
            case Draining():
                self._not_before_ms = at.now_ms + frame.reconnect_after_ms
            case _:
                self.unknown_frames += 1
        return self._commands()

    def timer(self, at: Instant) -> list[Command]:
        """Time has passed; harmless at any time, due at `wake_at_ms`."""
        if self.state not in _RUNNING:
            return self._commands()
        if at.now_ms >= self._token_retry_at_ms:
            self._need_token()
        if at.now_ms >= self._deadline_ms:
            self._out.append(Disconnect(self.generation))
            self._ended(at, self._end_reason, "", 0)
        if self.state is State.OPEN:
            self._open_timer(at)
        return self._commands()

    def token(self, token: SyncToken, at: Instant) -> list[Command]:
        """Answer to NeedToken."""
        self._token_asked = False
        self._token_attempts = 0
        self._token_retry_at_ms = _NEVER
        if self.state is State.STOPPED:
            return self._commands()
        self._token = token
        # Computed with a wrong clock, `expires_in_ms` may be anything; WELCOME then says what is true.
        self._token_lives(max(token.expires_in_ms, self.limits.least_token_life_ms), at)
        reasons = dict(token.refused)
        for topic in self._token_wanted - token.topics:
            self._fail_topic(topic, reasons.get(topic, "forbidden_topic"))
        if self.state is State.NO_TOKEN:
            self._connect(at)
        elif self.state is State.OPEN:
            self._use_token()
            self._ask(self._topics, at)
        return self._commands()

    def no_token(self, reason: str, message: str, at: Instant) -> list[Command]:
        """Answer to NeedToken: none is to be had. Asked for again later if the catalogue says that it helps."""
        self._token_asked = False
        if self.state is State.STOPPED:
            return self._commands()
        if action_of(reason) in _FATAL | {ClientAction.REAUTHENTICATE}:
            self._fail(reason, message)
            return self._commands()
        self._token_retry_at_ms = at.now_ms + RECONNECT.wait_ms(self._token_attempts, at.jitter)
        self._token_attempts += 1
        return self._commands()

    def rewind(self, topic: str, cursor: Cursor | None, at: Instant) -> list[Command]:
        """An Apply or Resync failed and the store stands at `cursor`: have everything after it sent again."""
        known = self._topics.get(topic)
        if known is not None:
            self._follow_up(known, known.rewind(cursor), at)
        return self._commands()

    @property
    def wake_at_ms(self) -> int | None:
        """When `timer` is due; None when nothing is waited for."""
        if self.state not in _RUNNING:
            return None
        times = [self._token_retry_at_ms, self._deadline_ms]
        if self.state is State.OPEN:
            times += [self._ping_at_ms, self._refresh_at_ms]
            times += [topic.retry_at_ms for topic in self._topics.values() if topic.phase is Phase.WAITING]
        soonest = min(times)
        return None if soonest == _NEVER else soonest

    # --------------------------------------------------------------------------------------------- connection

    def _connect(self, at: Instant) -> None:
        """Asks for a connection, or first for the token that it needs."""
        self._deadline_ms = _NEVER
        if not self._token_usable(at):
            self.state = State.NO_TOKEN
            self._need_token()
            return
        self.state = State.CONNECTING
        self.generation += 1
        delay_ms = max(0, self._not_before_ms - at.now_ms)
        self._deadline_ms = at.now_ms + delay_ms + self.limits.connect_timeout_ms
        self._out.append(Connect(self.generation, delay_ms))

    def _ended(self, at: Instant, reason: str, message: str, retry_after_ms: int) -> None:
        """The present connection is over: back off and connect again, unless that can't help."""
        self._forget_connection()
        action = action_of(reason) if reason else ClientAction.RECONNECT
        if action in _FATAL:
            self._fail(reason, message)
            return
        if action is ClientAction.REAUTHENTICATE:
            self._token = None
        wait_ms = max(RECONNECT.wait_ms(self._attempts, at.jitter), retry_after_ms)
        self._not_before_ms = max(self._not_before_ms, at.now_ms + wait_ms)
        self._attempts += 1
        self._connect(at)

    def _forget_connection(self) -> None:
        self.generation += 1
        self._deadline_ms = self._ping_at_ms = _NEVER
        self._end_reason = self._token_sent = ""
        for topic in self._topics.values():
            topic.cut()

    def _drop_connection(self) -> None:
        if self.state in _RUNNING and self.state is not State.NO_TOKEN:
            self._out.append(Disconnect(self.generation))
        self._forget_connection()

    def _fail(self, reason: str, message: str) -> None:
        self._drop_connection()
        self.state = State.STOPPED
        self._out.append(SessionFailed(reason, message))

    def _welcome(self, frame: Welcome, at: Instant) -> None:
        if self.state is not State.GREETING:
            return
        self.state = State.OPEN
        self._silence_limit_ms = int(frame.heartbeat_interval_ms * self.limits.silent_heartbeats)
        self._deadline_ms = at.now_ms + self._silence_limit_ms
        self._ping_every_ms = max(1, frame.idle_timeout_ms // 3)
        self._ping_at_ms = at.now_ms + self._ping_every_ms
        self._not_before_ms = 0
        if self._token is not None and self._token.text == self._token_sent:
            # Both times are the gateway's, so their difference needs no clock of ours.
            self._token_lives(frame.token_expire_time_ms - frame.server_time_ms, at)
        self._use_token()
        self._ask(self._topics, at)

    def _error(self, frame: ErrorFrame, at: Instant) -> None:
        if frame.topic:
            self._topic_frame(frame, at)
        else:
            # The close follows; what it means is decided then.
            self._end_reason = frame.reason
            self._not_before_ms = max(self._not_before_ms, at.now_ms + frame.retry_after_ms)

    def _open_timer(self, at: Instant) -> None:
        if at.now_ms >= self._ping_at_ms:
            self._nonce += 1
            self._ping_at_ms = at.now_ms + self._ping_every_ms
            self._send(Ping(self._nonce))
        if at.now_ms >= self._refresh_at_ms:
            self._need_token()
        due = [t for t in self._topics.values() if t.phase is Phase.WAITING and at.now_ms >= t.retry_at_ms]
        for topic in due:
            topic.phase = Phase.IDLE
        self._ask([topic.name for topic in due], at)

    # --------------------------------------------------------------------------------------------- token

    def _token_lives(self, left_ms: int, at: Instant) -> None:
        self._token_ends_ms = at.now_ms + left_ms
        self._refresh_at_ms = at.now_ms + int(left_ms * self.limits.refresh_at_fraction)

    def _token_usable(self, at: Instant) -> bool:
        return self._token is not None and self._token_ends_ms > at.now_ms + self.limits.token_margin_ms

    def _need_token(self) -> None:
        """Asks for a token for all topics that are followed, once at a time; with none, there is nothing to ask for."""
        self._token_retry_at_ms = self._refresh_at_ms = _NEVER
        wanted = frozenset(topic.name for topic in self._topics.values() if topic.phase is not Phase.FAILED)
        if wanted and not self._token_asked:
            self._token_asked = True
            self._token_wanted = wanted
            self._out.append(NeedToken(wanted))

    def _use_token(self) -> None:
        if self._token is not None and self._token.text != self._token_sent:
            self._token_sent = self._token.text
            self._send(RefreshToken(self._token.text))

    def _fail_topic(self, name: str, reason: str) -> None:
        topic = self._topics.get(name)
        if topic is not None and topic.phase is not Phase.FAILED:
            topic.phase = Phase.FAILED
            self._out.append(TopicFailed(name, reason, "the token does not grant this topic"))

    # --------------------------------------------------------------------------------------------- topics

    def _ask(self, names: Iterable[str], at: Instant) -> None:
        """Subscribes those of `names` that wait for it; for those that the token lacks, asks for one that has them."""
        if self.state is not State.OPEN or self._token is None:
            return
        idle = [topic for topic in (self._topics[name] for name in names) if topic.phase is Phase.IDLE]
        if any(topic.name not in self._token.topics for topic in idle):
            self._need_token()
        granted = [topic for topic in idle if topic.name in self._token.topics]
        for start in range(0, len(granted), self.limits.subscribe_batch):
            batch = granted[start : start + self.limits.subscribe_batch]
            self._send(Subscribe(tuple((topic.name, topic.cursor) for topic in batch)))
            for topic in batch:
                topic.asked()

    def _topic_frame(self, frame: Event | Snapshot | Subscribed | CaughtUp | ErrorFrame, at: Instant) -> None:
        topic = self._topics.get(frame.topic)
        if topic is None or self.state is not State.OPEN:
            return
        match frame:
            case Event():
                commands, then = topic.event(frame)
            case Snapshot():
                commands, then = topic.snapshot(frame)
            case Subscribed():
                commands, then = topic.subscribed(frame)
            case CaughtUp():
                commands, then = topic.caught_up(frame)
            case ErrorFrame():
                commands, then = topic.refused(frame)
        if commands and not isinstance(commands[0], Resync | TopicFailed):
            self._attempts = 0
        self._out.extend(commands)
        retry_after_ms = frame.retry_after_ms if isinstance(frame, ErrorFrame) else 0
        self._follow_up(topic, then, at, retry_after_ms)

    def _follow_up(self, topic: ClientTopic, then: Next, at: Instant, retry_after_ms: int = 0) -> None:
        if then is Next.ASK and topic.repairs > self.limits.max_repairs:
            # Asking at once does not mend it: ask later, and if that doesn't either, ask another gateway.
            topic.repairs = 0
            then = Next.RETRY if topic.attempts < self.limits.max_repairs else Next.RECONNECT
        if then is Next.ASK:
            self._ask([topic.name], at)
        elif then is not Next.NOTHING:
            wait_ms = max(RECONNECT.wait_ms(topic.attempts, at.jitter), retry_after_ms)
            topic.attempts += 1
            if then is Next.RETRY:
                topic.phase = Phase.WAITING
                topic.retry_at_ms = at.now_ms + wait_ms
            else:
                self._out.append(Disconnect(self.generation))
                self._ended(at, "", "", wait_ms)

    def _heartbeat(self, frame: Heartbeat, at: Instant) -> None:
        self._attempts = 0
        for head in frame.heads:
            topic = self._topics.get(head.topic)
            if topic is not None and self.state is State.OPEN:
                self._follow_up(topic, topic.head(head), at)

    def _send(self, frame: Hello | Subscribe | Unsubscribe | RefreshToken | Ping) -> None:
        self._out.append(Send(self.generation, frame))

    def _commands(self) -> list[Command]:
        commands, self._out = self._out, []
        return commands
