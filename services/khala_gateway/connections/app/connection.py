"""One connection: it tells its session everything that happens, and carries out the session's commands in order."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import lru_cache

import structlog

from oa_base.refusal import Refusal
from oa_khala.frames import CaughtUp, ErrorFrame, Form, Heartbeat, ServerFrame, Snapshot, Subscribed
from oa_khala.server import commands
from oa_khala.server.admission import Grant
from oa_khala.server.commands import Subscription
from oa_khala.server.session import ServerSession
from oa_khala.server.subscriptions import Served
from oa_khala.wire import decode_client_frame, encode_server_frame
from oa_platform.telemetry.metrics import count_refusal
from services.khala_gateway.connections import metrics
from services.khala_gateway.connections.app.delivery import Delivery
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.ports import Transport
from services.khala_gateway.connections.app.subscriber import TopicSubscriber
from services.khala_gateway.connections.app.timer import SessionTimer
from services.khala_gateway.feeds.app.entries import Entry
from services.khala_gateway.feeds.domain import Encoding

_log = structlog.get_logger(__name__)
_COMMON = (Subscribed, CaughtUp, Heartbeat)
_REMEMBERED_ANSWERS = 64
# Fewer bytes wait for each other.
_TOGETHER_BYTES = 64 * 1024


class Connection:
    """See the module. The socket's side calls `message`, `heard`, `malformed`, `blocked` and `closed`."""

    __slots__ = (
        "_began_ms",
        "_delivery",
        "_dependencies",
        "_header_token",
        "_held",
        "_now_ms",
        "_running",
        "_session",
        "_subscribers",
        "_tasks",
        "_timer",
        "_todo",
        "_transport",
        "_unwatch",
        "_unwritten",
        "connection_id",
    )

    def __init__(self, connection_id: str, transport: Transport, dependencies: Dependencies, header_token: str) -> None:
        self.connection_id = connection_id
        self._transport = transport
        self._dependencies = dependencies
        self._header_token = header_token
        self._now_ms = dependencies.now_ms
        self._began_ms = self._now_ms()
        hub, limits = dependencies.hub, dependencies.limits
        if transport.encoding.form is Form.READABLE:
            limits = replace(limits, snapshot_part_bytes=0)  # a part is not a message: readers get snapshots whole
        self._session = ServerSession(connection_id, limits, hub.standing, self._began_ms)
        self._delivery = Delivery(self._session, transport, dependencies, self._run, self._deliver)
        self._subscribers: dict[Subscription, TopicSubscriber] = {}
        # A list, because it is short: an empty set takes four times the memory.
        self._tasks: list[asyncio.Task[None]] = []
        self._held: Grant | None = None
        self._unwatch: Callable[[], None] = lambda: None
        self._todo: list[commands.Command] = []
        # Messages that are written together once all commands have been carried out: each write is a system call.
        self._unwritten: list[bytes] = []
        self._running = False
        self._timer = SessionTimer(self._session, dependencies.alarms, self._time_has_passed)
        self._timer.arm()

    # --------------------------------------------------------------------------------------------- from the socket

    def message(self, data: bytes) -> None:
        """Handle a complete WebSocket message of the connection's form."""
        try:
            frame = decode_client_frame(data, self._transport.encoding.form)
        except Refusal as refusal:
            self.malformed(refusal)
            return
        self._run(self._session.frame(frame, self._now_ms()))

    def heard(self) -> None:
        """Note that something else arrived, which shows that the client is alive."""
        self._session.heard(self._now_ms())

    def malformed(self, refusal: Refusal) -> None:
        """Refuse something that is not a frame."""
        self._run(self._session.refused(refusal))

    def blocked(self, blocked: bool) -> None:
        """Note that the socket accepts no data at present, or accepts data again."""
        now_ms = self._now_ms()
        self._session.blocked(blocked, now_ms)
        self._session.taken(self._transport.taken_bytes, now_ms)
        if blocked:
            for subscriber in self._subscribers.values():
                subscriber.blocked()
        self._delivery.blocked(blocked)
        self._timer.arm()

    def closed(self) -> None:
        """Clean up after the socket has closed."""
        self._run(self._session.subscriptions.end_all())
        self._delivery.stop()
        self._dependencies.heartbeats.stop(self)
        for task in self._tasks:
            task.cancel()
        self._timer.stop()
        self._unwatch()
        if self._held is not None:
            self._dependencies.live_tokens.release(self._held, self)
        # The one record of each connection: another at its beginning would take a tenth of what letting it in costs.
        held, encoding = self._held, self._transport.encoding
        _log.info(
            "connection_gone",
            connection_id=self.connection_id,
            subject=held.subject if held else "",
            session_id=held.session_id if held else "",
            form=encoding.form.value,
            deflates=encoding.deflate_from is not None,
            lasted_s=round((self._now_ms() - self._began_ms) / 1000, 3),
        )

    # --------------------------------------------------------------------------------------------- from the gateway

    @property
    def is_full(self) -> bool:
        """Whether it takes no message before a token has been verified; then it has the transport `read_on`."""
        return self._session.is_full

    @property
    def encoding(self) -> Encoding:
        """The encoding of what it says by itself: small messages, which are not compressed."""
        return self._transport.encoding.plain

    @property
    def served(self) -> Served:
        """The topics that are being served."""
        return self._session.subscriptions.served

    @property
    def write(self) -> Callable[[bytes], None]:
        """Writes complete messages to its socket."""
        return self._transport.write

    def drain(self, delay_ms: int) -> None:
        """Announce the drain to the client, and close in `delay_ms`."""
        self._run(self._session.drain(delay_ms, self._now_ms()))

    def token_replayed(self) -> None:
        """End this connection, because another one came with the same token."""
        message = "another connection came with the same token; get a new token for each"
        self._run(self._session.refused(Refusal("token_replayed", message)))

    def _revoked(self, refusal: Refusal) -> None:
        """End this connection, because its token has been revoked."""
        self._run(self._session.refused(refusal))

    def _time_has_passed(self, now_ms: int) -> None:
        if self._delivery.is_blocked:
            self._session.taken(self._transport.taken_bytes, now_ms)
        self._run(self._session.timer(now_ms))

    # --------------------------------------------------------------------------------------------- commands

    def _run(self, todo: list[commands.Command]) -> None:
        """Carry out commands in order, including those that result from carrying out others."""
        self._todo += todo
        if self._running:
            return
        self._running = True
        begun = 0
        try:
            for command in self._todo:  # which grows meanwhile
                begun += 1
                self._do(command)
        finally:
            del self._todo[:begun]
            self._running = False
            self._write()
        self._timer.arm()

    def _do(self, command: commands.Command) -> None:
        match command:
            case commands.SendFrame():
                self._send(command.frame)
            case commands.StartHeartbeats():
                self._dependencies.heartbeats.start(self)
            case commands.VerifyToken():
                self._spawn(self._verify(command.token))
            case commands.JoinFeed():
                self._join(command.subscription)
            case commands.ConfirmCursor():
                subscriber = self._subscribers[command.subscription]
                self._spawn(subscriber.confirm(command.cursor, self._dependencies))
            case commands.ReadSnapshot():
                self._spawn(self._delivery.read_snapshot(self._subscribers[command.subscription]))
            case commands.Serve():
                self._dependencies.heartbeats.changed(self)
                self._delivery.serve(self._subscribers[command.subscription])
            case commands.LeaveFeed():
                self._dependencies.heartbeats.changed(self)
                subscriber = self._subscribers.pop(command.subscription)
                self._dependencies.hub.leave(command.subscription.topic, subscriber)
            case commands.CloseConnection():
                self._close(command)

    def _send(self, frame: ServerFrame) -> None:
        if isinstance(frame, _COMMON):
            self._unwritten.append(_common_entry(frame).message(self._transport.encoding.plain))
            return
        if isinstance(frame, ErrorFrame) and frame.topic:
            count_refusal(frame.reason, "ws")
            _log.info("topic_refused", connection_id=self.connection_id, reason=frame.reason)
        entry = _entry(frame)
        if isinstance(frame, Snapshot):
            self._deliver(entry.message(self._transport.encoding), [])
        else:
            self._unwritten.append(entry.message(self._transport.encoding.plain))  # small, and only for this client

    def _deliver(self, messages: bytes, then: list[commands.Command]) -> None:
        """Write what a subscription gets, behind the messages that wait, and carry out what follows from it.

        While commands are carried out, it waits too, unless so much does that the socket has to say whether it accepts
        more.
        """
        if not self._running and not then:
            self._transport.write(messages)
            return
        if sum(map(len, self._unwritten)) >= _TOGETHER_BYTES:
            self._write()
        self._unwritten.append(messages)
        self._run(then)

    def _write(self) -> None:
        unwritten = self._unwritten
        if len(unwritten) == 1:
            self._transport.write(unwritten.pop())
        elif unwritten:
            self._unwritten = []
            self._transport.write_all(unwritten)

    def _join(self, subscription: Subscription) -> None:
        registered_at = self._dependencies.replays.tick()
        subscriptions = self._session.subscriptions
        subscriber = TopicSubscriber(
            subscription, subscriptions, self._delivery, self._transport, self._run, registered_at
        )
        self._subscribers[subscription] = subscriber
        self._dependencies.hub.join(subscription.topic, subscriber)

    def _close(self, command: commands.CloseConnection) -> None:
        _log.info("connection_closing", connection_id=self.connection_id, reason=command.reason, code=command.code)
        metrics.CLOSES.labels(command.reason).inc()
        if command.reason != "draining":
            count_refusal(command.reason, "ws")
        self._dependencies.heartbeats.stop(self)
        self._write()
        self._transport.close(command.code, command.reason)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)
        task.add_done_callback(self._delivery.ended)

    async def _verify(self, token: str) -> None:
        try:
            text = token or self._header_token
            if not text:
                raise Refusal(
                    "missing_authorization", "there is no sync token; send one in the Authorization header or in Hello"
                )
            grant = await self._dependencies.tokens.verify(text)
            if self._held is None:
                self._dependencies.live_tokens.check(grant)
        except Refusal as refusal:
            self._run(self._session.refused(refusal))
            return
        self._run(self._session.token_accepted(grant, self._now_ms()))
        if self._session.holds(grant):
            self._hold(grant)
        self._transport.read_on()

    def _hold(self, grant: Grant) -> None:
        live_tokens = self._dependencies.live_tokens
        if self._held is not None:
            live_tokens.release(self._held, self)
        self._held = grant
        live_tokens.claim(grant, self)
        self._unwatch()
        self._unwatch = self._dependencies.revocations.watch(grant.holder, self._revoked)


def _entry(frame: ServerFrame) -> Entry:
    return Entry(encode_server_frame(frame, Form.PROTO))


@lru_cache(_REMEMBERED_ANSWERS)
def _common_entry(frame: ServerFrame) -> Entry:
    """Many clients that come back to a topic together are answered the same: it is encoded once for all of them."""
    return _entry(frame)
