"""The client half of Khala, across any number of connections: what is applied is exactly the topic, in order, once.

The driver of a session (`oa_client` on asyncio, a browser, the simulation) reports what happened and carries out the
commands that each call returns, in order:

    start · connected · frame · disconnected · timer · token · no_token · suspended · resumed · rewind · stop

and calls `timer` no later than at `wake_at_ms`. Every connection has a generation. Reports from a connection of an
earlier generation are dropped, so a late socket can't disturb the current one. Reports in a state that does not expect
them (`states`) are dropped too.
"""

from collections.abc import Collection

from oa_base.catalogue import ClientAction
from oa_khala.client.commands import (
    Chains,
    ClientLimits,
    Command,
    Instant,
    NoChains,
    Resync,
    SyncToken,
    TopicFailed,
)
from oa_khala.client.connection import FATAL, Connection
from oa_khala.client.deadlines import NEVER
from oa_khala.client.states import RUNNING, State, Step
from oa_khala.client.subscriptions import Subscriptions
from oa_khala.client.topics import ClientTopic, Counts, Next, Phase, TopicFrame, action_of
from oa_khala.frames import (
    CaughtUp,
    Cursor,
    Draining,
    ErrorFrame,
    Event,
    Heartbeat,
    ServerFrame,
    Snapshot,
    Subscribed,
    Unsubscribe,
    Welcome,
)

# The actions of the reasons for which control gives no token because it grants nothing of what was asked for.
_NOT_GRANTED = frozenset({ClientAction.FIX_REQUEST, ClientAction.GIVE_UP})


class ClientSession:
    """See the module. `state`, `generation`, `wake_at_ms`, `counts` and `cursor()` may be read at any time."""

    def __init__(
        self,
        device_id: str,
        client_build_id: str,
        limits: ClientLimits | None = None,
        chains: Chains | None = None,
        grants: Collection[str] = (),
    ) -> None:
        """`chains` binds cursors to what was applied; without it they are only numbers. `grants`: see `Tokens`."""
        self.limits = limits or ClientLimits()
        self._device_id = device_id
        self._client_build_id = client_build_id
        self._out: list[Command] = []
        self._topics = Subscriptions(self.limits, chains or NoChains())
        self._connection = Connection(self._topics, self.limits, self._out, grants)

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._connection.state

    @property
    def generation(self) -> int:
        """Generation of the current connection."""
        return self._connection.generation

    @property
    def counts(self) -> Counts:
        """Counts of what has come so far."""
        return self._topics.counts

    # --------------------------------------------------------------------------------------------- what one wants

    def start(self, at: Instant) -> list[Command]:
        """Begin: connect as soon as there is a token."""
        if self._connection.may(Step.START):
            self._connection.want(Step.START, at)
        return self._commands()

    def stop(self) -> list[Command]:
        """End for good."""
        self._connection.leave(Step.STOP)
        return self._commands()

    def subscribe(self, topic: str, cursor: Cursor | None, at: Instant, takes_snapshots: bool = False) -> list[Command]:
        """Follow `topic` from the persisted `cursor` on, or from its start. Ignored if the topic is already followed.

        `takes_snapshots`: the topic may begin with a snapshot of any size, a run with its own in place of its events.
        Without it, only lists begin with a snapshot, of a single frame.
        """
        if self._topics.follow(topic, cursor, takes_snapshots):
            if not self._connection.tokens.has_room(self._topics.wanted):
                self._out += self._topics.refuse(topic, "too_many_topics")
            elif self.state is State.NO_TOKEN:
                self._connection.need_token()
            self._connection.ask([topic])
        return self._commands()

    def unsubscribe(self, topic: str) -> list[Command]:
        """Stop following `topic`; its cursor stays persisted."""
        if self._topics.unfollow(topic) and self.state is State.OPEN:
            self._connection.send(Unsubscribe((topic,)))
        return self._commands()

    def cursor(self, topic: str) -> Cursor | None:
        """Return how far `topic` has been handed out to be applied."""
        known = self._topics.get(topic)
        return known.cursor if known else None

    def suspended(self) -> list[Command]:
        """Drop the connection and wait for `resumed`: the device goes to sleep or offline."""
        if self._connection.may(Step.SUSPEND):
            self._connection.leave(Step.SUSPEND)
        return self._commands()

    def resumed(self, at: Instant) -> list[Command]:
        """Connect as soon as the gateway allows, whatever failed before: the device is back."""
        if self._connection.may(Step.RESUME):
            self._connection.reconnecting.woke()
            self._connection.want(Step.RESUME, at)
        return self._commands()

    # --------------------------------------------------------------------------------------------- what happens

    def connected(self, generation: int, at: Instant) -> list[Command]:
        """Send Hello: the connection of `generation` is open."""
        if generation == self.generation and self._connection.may(Step.CONNECTED):
            self._connection.greet(self._device_id, self._client_build_id, at)
        return self._commands()

    def disconnected(
        self, generation: int, at: Instant, reason: str = "", message: str = "", retry_after_ms: int = 0
    ) -> list[Command]:
        """Handle a connection of `generation` that has ended or could not be made.

        `reason` is from the catalogue, if the driver knows one (an HTTP refusal of the handshake, a close code).
        """
        if generation == self.generation and self._connection.may(Step.LOST):
            self._connection.ended(at, self._connection.end_reason or reason, message, retry_after_ms)
        return self._commands()

    def frame(self, generation: int, frame: ServerFrame, at: Instant) -> list[Command]:
        """Handle a frame that came on the connection of `generation`."""
        if generation != self.generation or self.state not in (State.GREETING, State.OPEN):
            return []
        if self.state is State.OPEN:
            self._connection.deadlines.heard(at.now_ms)
        match frame:
            case Event() | Snapshot() | Subscribed() | CaughtUp():
                self._topic_frame(frame, at)
            case ErrorFrame() if frame.topic:
                self._topic_frame(frame, at)
            case ErrorFrame():
                self._connection.refused(frame, at)
            case Heartbeat():
                self._heartbeat(frame, at)
            case Welcome():
                self._welcome(frame, at)
            case Draining():
                self._connection.reconnecting.reschedule(at.now_ms + frame.reconnect_after_ms)
            case _:
                self._topics.counts.unknown += 1
        return self._commands()

    def timer(self, at: Instant) -> list[Command]:
        """Do what the passing of time requires. Harmless at any time, due at `wake_at_ms`."""
        connection = self._connection
        if self.state not in RUNNING:
            return []
        if at.now_ms >= connection.tokens.retry_at_ms:
            connection.need_token()
        if at.now_ms >= connection.deadlines.give_up_at_ms:
            connection.give_up(at, connection.end_reason)
        if self.state is State.OPEN:
            connection.keep_up(at)
        return self._commands()

    def token(self, token: SyncToken, at: Instant) -> list[Command]:
        """Answer to NeedToken."""
        if self.state is State.STOPPED:
            return []
        if self.state is State.OPEN and self._connection.tokens.passed_over(token, self._topics.carried):
            self._connection.need_token()
            return self._commands()
        reasons = dict(token.refused)
        for topic in sorted(self._connection.tokens.granted(token, at.now_ms)):
            self._out += self._topics.refuse(topic, reasons.get(topic, "forbidden_topic"))
        if self.state is State.NO_TOKEN:
            self._connection.dial(at)
        elif self.state is State.OPEN:
            self._connection.use_token()
            self._connection.ask(self._topics.names)
        return self._commands()

    def no_token(self, reason: str, message: str, at: Instant, retry_after_ms: int = 0) -> list[Command]:
        """Answer to NeedToken: no token is available. Asks again if the catalogue says that it helps: after the
        backoff or `retry_after_ms`, whichever is longer."""
        if self.state is State.STOPPED:
            return []
        tokens, action = self._connection.tokens, action_of(reason)
        tokens.refused(at, retry_after_ms)
        if action in _NOT_GRANTED and tokens.drop_grants():
            self._connection.need_token()
        elif action in FATAL | {ClientAction.REAUTHENTICATE}:
            self._connection.fail(reason, message)
        return self._commands()

    def rewind(self, topic: str, cursor: Cursor | None, at: Instant) -> list[Command]:
        """Have everything after `cursor` sent again: an Apply or Resync failed, and the store is at `cursor`."""
        known = self._topics.get(topic)
        if known is not None:
            self._follow_up(known, known.rewind(cursor), at)
        return self._commands()

    @property
    def wake_at_ms(self) -> int | None:
        """When `timer` is due; None when there is nothing to wait for."""
        if self.state not in RUNNING:
            return None
        tokens, deadlines = self._connection.tokens, self._connection.deadlines
        soonest = min(tokens.retry_at_ms, deadlines.give_up_at_ms)
        if self.state is State.OPEN:
            soonest = min(soonest, deadlines.ping_at_ms, tokens.refresh_at_ms, self._topics.retry_at_ms)
        return None if soonest == NEVER else soonest

    # --------------------------------------------------------------------------------------------- frames

    def _welcome(self, frame: Welcome, at: Instant) -> None:
        if self._connection.may(Step.WELCOMED):
            self._connection.welcome(frame, at)
            self._connection.ask(self._topics.names)

    def _heartbeat(self, frame: Heartbeat, at: Instant) -> None:
        self._connection.reconnecting.succeeded()
        for head in frame.heads:
            topic = self._topics.get(head.topic)
            if topic is not None and self.state is State.OPEN:
                self._follow_up(topic, topic.head(head), at)

    def _topic_frame(self, frame: TopicFrame, at: Instant) -> None:
        topic = self._topics.get(frame.topic)
        if topic is None or self.state is not State.OPEN:
            return
        commands, then = topic.frame(frame)
        if commands and not isinstance(commands[0], Resync | TopicFailed):
            self._connection.reconnecting.succeeded()
        self._out += commands
        if isinstance(frame, Snapshot) and topic.phase is Phase.FAILED and commands:
            self._connection.send(Unsubscribe((topic.name,)))
        self._follow_up(topic, then, at, frame.retry_after_ms if isinstance(frame, ErrorFrame) else 0)

    def _follow_up(self, topic: ClientTopic, then: Next, at: Instant, retry_after_ms: int = 0) -> None:
        match topic.patience(then, self.limits.max_repairs):
            case Next.ASK:
                self._connection.ask([topic.name])
            case Next.RETRY:
                topic.wait(at.now_ms + topic.back_off(at, retry_after_ms))
            case Next.RECONNECT:
                self._connection.give_up(at, retry_after_ms=topic.back_off(at, retry_after_ms))

    def _commands(self) -> list[Command]:
        commands = self._out[:]
        self._out.clear()
        return commands
