"""One connection: its session, what it subscribes to, and how it is served when its socket can take more.

A subscription is `(feed, next_seq)` and no queue: a slow reader costs an integer. What lies in the ring is written from
there, topic by topic in slices; what lies below it is read from history, one page at a time for a connection.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog

from oa_base.backoff import RECONNECT
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_khala.cursors import STALE_REASONS
from oa_khala.frames import ClientFrame, Cursor, ErrorFrame, Form, ServerFrame, TopicState
from oa_khala.server import commands
from oa_khala.server.admission import Grant
from oa_khala.server.limits import SessionLimits
from oa_khala.server.session import DeliveryBroken, ServerSession, State
from oa_khala.topics import Topic
from oa_khala.wire import decode_client_frame, encode_server_frame
from oa_platform.telemetry.metrics import count_refusal
from services.khala_gateway.admission.app import LiveTokens, SyncTokens
from services.khala_gateway.connections import metrics
from services.khala_gateway.connections.app.flusher import Flusher
from services.khala_gateway.connections.app.ports import Transport
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.entries import Segment
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.replays import ReplayPage, ReplayReader
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.feeds.domain import binary_message, text_message

_log = structlog.get_logger(__name__)
# Slices in one turn of a connection, so that one that catches up doesn't hold up the others.
_SLICES_A_TURN = 8


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What connections are made of and share. `now_ms` is Unix time by a clock that never goes back."""

    hub: FeedHub
    replays: ReplayReader
    confirmations: Confirmations
    tokens: SyncTokens
    live_tokens: LiveTokens
    flusher: Flusher
    limits: SessionLimits
    now_ms: Callable[[], int]
    jitter: Callable[[], float]


class Serving:
    """One topic of one connection. `next_seq` is 0 until the session has answered SUBSCRIBED."""

    __slots__ = (
        "attachment",
        "attempt",
        "behind",
        "connection",
        "dirty",
        "epoch",
        "feed",
        "live",
        "name",
        "next_seq",
        "since",
        "topic",
    )

    def __init__(self, connection: "Connection", topic: Topic, attachment: int, since: int) -> None:
        self.connection = connection
        self.topic = topic
        self.name = str(topic)
        self.attachment = attachment
        self.since = since
        self.feed: TopicFeed | None = None
        self.epoch = ""
        self.next_seq = 0
        # At most one of these: it may have something to deliver; it waits for history.
        self.dirty = False
        self.behind = False
        self.live = True
        self.attempt = 0

    def ready(self, feed: TopicFeed) -> None:
        """The feed stands."""
        self.feed = feed
        self.connection.topic_ready(self, feed)

    def moved(self) -> None:
        """The feed has more."""
        if self.next_seq:
            self.connection.mark_dirty(self)

    def stale(self, reason: str, state: TopicState) -> None:
        """What was being delivered can't go on."""
        self.connection.topic_stale(self, reason, state)

    def refused(self, refusal: Refusal) -> None:
        """The topic can't be had."""
        self.connection.topic_refused(self, refusal)


class Connection:
    """See the module. The socket's side calls `message`, `heard`, `malformed`, `blocked` and `closed`."""

    def __init__(self, connection_id: str, transport: Transport, dependencies: Dependencies, header_token: str) -> None:
        self.connection_id = connection_id
        self._transport = transport
        self._dependencies = dependencies
        self._header_token = header_token
        self._session = ServerSession(
            connection_id, dependencies.limits, dependencies.hub.head_of, dependencies.now_ms()
        )
        self._servings: dict[str, Serving] = {}
        self._dirty: deque[Serving] = deque()
        self._behind: deque[Serving] = deque()
        self._replaying: asyncio.Task[None] | None = None
        self._confirming: set[asyncio.Task[None]] = set()
        self._verifying: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._jti = ""
        self._todo: deque[commands.Command] = deque()
        self._running = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms = 0
        self._arm_timer()

    # --------------------------------------------------------------------------------------------- from the socket

    def message(self, data: bytes) -> None:
        """A complete WebSocket message of the connection's form."""
        try:
            frame: ClientFrame = decode_client_frame(data, self._transport.form)
        except Refusal as refusal:
            self.malformed(refusal)
            return
        self._run(self._session.frame(frame, self._dependencies.now_ms()))

    def heard(self) -> None:
        """Something else came, that shows that the client lives."""
        self._session.heard(self._dependencies.now_ms())

    def malformed(self, refusal: Refusal) -> None:
        """What came is no frame."""
        self._run(self._session.refused(refusal, self._dependencies.now_ms()))

    def blocked(self, blocked: bool) -> None:
        """The socket takes nothing at present, or again."""
        self._session.blocked(blocked, self._dependencies.now_ms())
        if blocked:
            self._writable.clear()
        else:
            self._writable.set()
            self._dependencies.flusher.ask(self)
        self._arm_timer()

    def closed(self) -> None:
        """The socket is gone."""
        for serving in list(self._servings.values()):
            self._detach(serving)
        for task in (self._replaying, self._verifying, *self._confirming):
            if task is not None:
                task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._jti:
            self._dependencies.live_tokens.release(self._jti, self)
        self._dependencies.flusher.forget(self)

    # --------------------------------------------------------------------------------------------- from the gateway

    def drain(self, delay_ms: int) -> None:
        """Say goodbye, and close in `delay_ms`."""
        self._run(self._session.drain(delay_ms, self._dependencies.now_ms()))

    def token_replayed(self) -> None:
        """Another connection came with the same token."""
        message = "another connection came with the same token; get a new token for each"
        self._run(self._session.refused(Refusal("token_replayed", message), self._dependencies.now_ms()))

    def topic_ready(self, serving: Serving, feed: TopicFeed) -> None:
        """A feed stands: from here to its subscriber's SUBSCRIBED there is no await, so its head is the one served."""
        serving.epoch = feed.state.epoch
        answer = self._session.topic_ready(
            serving.name,
            serving.attachment,
            feed.state,
            feed.owner_user_id,
            feed.owner_org_id,
            self._dependencies.now_ms(),
        )
        self._run(answer)

    def topic_stale(self, serving: Serving, reason: str, state: TopicState) -> None:
        """A lineage has ended under a subscription."""
        now_ms = self._dependencies.now_ms()
        self._run(self._session.topic_stale(serving.name, serving.attachment, reason, state, now_ms))

    def topic_refused(self, serving: Serving, refusal: Refusal) -> None:
        """A source does not carry a topic."""
        now_ms = self._dependencies.now_ms()
        self._run(self._session.topic_refused(serving.name, serving.attachment, refusal, now_ms))

    # --------------------------------------------------------------------------------------------- delivery

    def mark_dirty(self, serving: Serving) -> None:
        """`serving` may have something to deliver."""
        if serving.dirty or serving.behind:
            return
        serving.dirty = True
        self._dirty.append(serving)
        if self._writable.is_set():
            self._dependencies.flusher.ask(self)

    def pump(self) -> None:
        """Writes slices round-robin over the dirty topics, as long as the socket takes them."""
        turns = _SLICES_A_TURN
        while self._dirty and turns and self._writable.is_set():
            turns -= 1
            serving = self._dirty.popleft()
            serving.dirty = False
            if serving.live:
                self._serve(serving)
        if self._dirty and self._writable.is_set():
            self._dependencies.flusher.ask(self)

    def _serve(self, serving: Serving) -> None:
        feed = serving.feed
        if feed is None or feed.feed is None:
            return
        try:
            segment = feed.segment(serving.next_seq, self._transport.form)
        except Refusal as refusal:
            self._broken(refusal)
            return
        if segment is None:
            serving.behind = True
            self._behind.append(serving)
            self._start_replaying()
        elif segment.frames:
            self._hand_over(serving, segment)
            if serving.live and serving.next_seq <= feed.head:
                self.mark_dirty(serving)

    def _hand_over(self, serving: Serving, segment: Segment) -> None:
        try:
            answer = self._session.delivered(serving.name, serving.next_seq, segment.frames)
        except DeliveryBroken as error:
            self._broken(error)
            return
        serving.next_seq += segment.frames
        serving.attempt = 0
        self._transport.write(segment.data)
        self._dependencies.flusher.delivered(segment.frames, len(segment.data))
        if answer:
            self._run(answer)

    def _broken(self, error: Exception) -> None:
        _log.error("delivery_broken", connection_id=self.connection_id, exc_info=error)
        message = "this is a defect on our side; connect again"
        self._run(self._session.refused(Refusal("internal", message), self._dependencies.now_ms()))

    # --------------------------------------------------------------------------------------------- history

    def _start_replaying(self) -> None:
        if self._replaying is None and self._behind:
            self._replaying = asyncio.create_task(self._replay_pages(), name=f"replay-{self.connection_id}")

    async def _replay_pages(self) -> None:
        """One page at a time, each time of another topic that waits."""
        try:
            while self._behind:
                serving = self._behind.popleft()
                if serving.live:
                    await self._replay_page(serving)
        finally:
            self._replaying = None

    async def _replay_page(self, serving: Serving) -> None:
        after_seq = serving.next_seq - 1
        try:
            page = await self._dependencies.replays.read(serving.topic, serving.epoch, after_seq, serving.since)
        except Refusal as refusal:
            self._replay_refused(serving, refusal)
            return
        self._dependencies.hub.learned(serving.topic, page.state)
        await self._writable.wait()
        if serving.live:
            self._take_page(serving, page)

    def _take_page(self, serving: Serving, page: ReplayPage) -> None:
        try:
            segment = page.segment(self._transport.form)
        except Refusal as refusal:
            self._broken(refusal)
            return
        if page.epoch != serving.epoch or (segment.frames and page.first_seq != serving.next_seq):
            self._broken(DeliveryBroken(f"{serving.name}: history gave {page.first_seq}, expected {serving.next_seq}"))
        elif not segment.frames:
            self._try_later(serving)
        else:
            serving.behind = False
            self._hand_over(serving, segment)
            if serving.live:
                self.mark_dirty(serving)

    def _replay_refused(self, serving: Serving, refusal: Refusal) -> None:
        if not serving.live or serving.feed is None:
            return
        if refusal.reason in STALE_REASONS and serving.feed.feed is not None:
            self._dependencies.hub.outdated(serving.topic)
            self.topic_stale(serving, refusal.reason, serving.feed.state)
        elif refusal.info.action is ClientAction.GIVE_UP:
            self.topic_refused(serving, refusal)
        else:
            # The source is away or busy: the socket stays open and delivery waits.
            _log.info("replay_postponed", connection_id=self.connection_id, topic=serving.name, reason=refusal.reason)
            self._try_later(serving)

    def _try_later(self, serving: Serving) -> None:
        delay_ms = RECONNECT.wait_ms(serving.attempt, self._dependencies.jitter())
        serving.attempt += 1
        asyncio.get_running_loop().call_later(delay_ms / 1000, self._try_again, serving)

    def _try_again(self, serving: Serving) -> None:
        serving.behind = False
        if serving.live:
            self.mark_dirty(serving)

    # --------------------------------------------------------------------------------------------- commands

    def _run(self, todo: list[commands.Command]) -> None:
        """Carries out commands in order, also those that carrying out one brings about."""
        self._todo.extend(todo)
        if self._running:
            return
        self._running = True
        try:
            while self._todo:
                self._do(self._todo.popleft())
        finally:
            self._running = False
        self._arm_timer()

    def _do(self, command: commands.Command) -> None:
        match command:
            case commands.SendFrame():
                self._send(command.frame)
            case commands.VerifyToken():
                self._verifying = asyncio.create_task(self._verify(command.token))
            case commands.Attach():
                serving = Serving(self, command.topic, command.attachment, self._dependencies.replays.tick())
                self._servings[serving.name] = serving
                self._dependencies.hub.attach(command.topic, serving)
            case commands.ConfirmCursor():
                self._spawn(self._confirm(self._servings[command.topic], command.cursor))
            case commands.Serve():
                self._begin(self._servings[command.topic], command.next_seq)
            case commands.Detach():
                self._detach(self._servings[command.topic])
            case commands.CloseConnection():
                self._close(command)

    def _send(self, frame: ServerFrame) -> None:
        if isinstance(frame, ErrorFrame) and frame.topic:
            count_refusal(frame.reason, "ws")
            _log.info("topic_refused", connection_id=self.connection_id, reason=frame.reason)
        encode = binary_message if self._transport.form is Form.PROTO else text_message
        self._transport.write(encode(encode_server_frame(frame, self._transport.form)))

    async def _verify(self, token: str) -> None:
        session, now_ms = self._session, self._dependencies.now_ms
        try:
            text = token or self._header_token
            if not text:
                raise Refusal(
                    "missing_authorization", "there is no sync token; send one in the Authorization header or in Hello"
                )
            grant = await self._dependencies.tokens.verify(text)
        except Refusal as refusal:
            self._run(session.token_refused(refusal, now_ms()))
            return
        self._run(session.token_accepted(grant, now_ms()))
        if session.grant is grant and session.state is not State.CLOSED:
            self._hold(grant)

    def _hold(self, grant: Grant) -> None:
        if self._jti and self._jti != grant.jti:
            self._dependencies.live_tokens.release(self._jti, self)
        self._jti = grant.jti
        self._dependencies.live_tokens.claim(grant.jti, self)
        _log.info("session_open", connection_id=self.connection_id, subject=grant.subject, session_id=grant.session_id)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm(self, serving: Serving, cursor: Cursor) -> None:
        """Ask the source about a cursor, and tell the session where the feed stands then."""
        session, now_ms = self._session, self._dependencies.now_ms
        refusal: Refusal | None = None
        try:
            await self._dependencies.confirmations.confirm(serving.topic, cursor)
        except Refusal as error:
            refusal = error
        if not serving.live or serving.feed is None or serving.feed.feed is None:
            return  # who ended it has said so
        state = serving.feed.state
        if refusal is None:
            self._run(session.cursor_confirmed(serving.name, serving.attachment, state, now_ms()))
            return
        chain = bytes.fromhex(refusal.metadata.get("chain", ""))
        if refusal.reason in STALE_REASONS and not chain:
            self._dependencies.hub.outdated(serving.topic)  # its numbers fit the feed, but not what the source has
        self._run(session.cursor_refused(serving.name, serving.attachment, refusal, state, chain, now_ms()))

    def _begin(self, serving: Serving, next_seq: int) -> None:
        serving.next_seq = next_seq
        if serving.feed is not None and next_seq <= serving.feed.head:
            self.mark_dirty(serving)

    def _detach(self, serving: Serving) -> None:
        serving.live = False
        self._servings.pop(serving.name, None)
        self._dependencies.hub.detach(serving.topic, serving)

    def _close(self, command: commands.CloseConnection) -> None:
        _log.info("connection_closing", connection_id=self.connection_id, reason=command.reason, code=command.code)
        metrics.CLOSES.labels(command.reason).inc()
        if command.reason != "draining":
            count_refusal(command.reason, "ws")
        self._transport.close(command.code, command.reason)

    # --------------------------------------------------------------------------------------------- time

    def _arm_timer(self) -> None:
        wake_at_ms = self._session.wake_at_ms
        if self._session.state is State.CLOSED:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self._timer is not None:
            if wake_at_ms >= self._timer_at_ms:
                return
            self._timer.cancel()
        delay_s = max(0, wake_at_ms - self._dependencies.now_ms()) / 1000
        self._timer_at_ms = wake_at_ms
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._run(self._session.timer(self._dependencies.now_ms()))
