"""Delivery to a connection whenever its socket can accept more.

A subscription is `(feed, next_seq)` and has no queue: a slow reader costs an integer. Frames in the ring are written
from there, topic by topic in slices. Frames below the ring are read from history, one page at a time per connection.
Snapshots that topics begin with are also read one at a time. A large snapshot is written in parts, each when the socket
accepts more.
"""

import asyncio
from collections.abc import Callable

import structlog

from oa_base.backoff import RECONNECT
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_khala.cursors import STALE_REASONS
from oa_khala.server.commands import Command, DeliveryBroken
from oa_khala.server.session import ServerSession
from oa_khala.server.subscriptions import Subscriptions
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.ports import Transport
from services.khala_gateway.connections.app.subscriber import Run, TopicSubscriber, Waits
from services.khala_gateway.feeds.app.entries import Segment
from services.khala_gateway.feeds.app.replays import ReplayPage
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.sources.app.ports import state_said

_log = structlog.get_logger(__name__)
# Slices in one turn of a connection, so that a connection that is catching up doesn't hold up the others.
_SLICES_A_TURN = 8


class Delivery:
    """Writes to one socket the frames that its connection's subscriptions can get, from rings and from history."""

    # Each event passes through here once for each subscriber, and most of its cost is the memory that this touches.
    __slots__ = (
        "_behind",
        "_dependencies",
        "_flusher",
        "_reading",
        "_ready",
        "_run",
        "_session",
        "_snapshot_turn",
        "_transport",
        "_unblocked",
        "_write",
        "is_blocked",
    )

    def __init__(
        self,
        session: ServerSession,
        transport: Transport,
        dependencies: Dependencies,
        run: Run,
        write: Callable[[bytes, list[Command]], None],
    ) -> None:
        """`run` carries out the session's commands; `write` writes messages behind those of earlier commands, and then
        carries out further ones."""
        self._session = session
        self._transport = transport
        self._dependencies = dependencies
        self._flusher = dependencies.flusher
        self._run = run
        self._write = write
        # Lists, because they are short: an empty deque takes ten times the memory, and each connection has them.
        self._ready: list[TopicSubscriber] = []
        self._behind: list[TopicSubscriber] = []
        self._reading: asyncio.Task[None] | None = None
        self._snapshot_turn = asyncio.Lock()
        self.is_blocked = False
        """Whether the socket accepts no data at present."""
        # Exists only while a task waits for the socket; set and removed when the socket accepts data again.
        self._unblocked: asyncio.Event | None = None

    def mark(self, subscriber: TopicSubscriber) -> None:
        """Give `subscriber` a turn, because it may have something to deliver."""
        if subscriber.waits is not Waits.NOTHING:
            return
        subscriber.waits = Waits.TURN
        self._ready.append(subscriber)
        if not self.is_blocked:
            self._flusher.ask(self)

    def blocked(self, blocked: bool) -> None:
        """Note that the socket accepts no data at present, or accepts data again."""
        self.is_blocked = blocked
        if blocked:
            return
        if self._unblocked is not None:
            self._unblocked.set()
            self._unblocked = None
        self._flusher.ask(self)

    def stop(self) -> None:
        """Stop delivering, because the socket has closed."""
        if self._reading is not None:
            self._reading.cancel()
        self._flusher.forget(self)

    def pump(self) -> None:
        """Write slices round-robin over the topics whose turn it is, as long as the socket accepts them."""
        turns = _SLICES_A_TURN
        while self._ready and turns and not self.is_blocked:
            turns -= 1
            subscriber = self._ready.pop(0)
            subscriber.waits = Waits.NOTHING
            if subscriber.subscription.live:
                self.serve(subscriber)
        if self._ready and not self.is_blocked:
            self._flusher.ask(self)

    def serve(self, subscriber: TopicSubscriber) -> None:
        """Write the next slice for `subscriber`, which waits for nothing, or make it wait for its turn or history."""
        feed, subscription = subscriber.feed, subscriber.subscription
        if feed is None:
            return
        if self.is_blocked:
            self.mark(subscriber)
            return
        try:
            segment = feed.segment(subscription.next_seq, self._transport.encoding)
        except Exception as error:  # noqa: BLE001 - whatever the defect is, the client would wait forever
            self.broken(error)
            return
        if segment is None:
            self._serve_history(subscriber)
            return
        if segment.frames:
            self._hand_over(subscriber, segment)
        if subscription.live:
            self._go_on(subscriber, feed)

    def _go_on(self, subscriber: TopicSubscriber, feed: TopicFeed) -> None:
        """Give `subscriber` another turn if there is more; otherwise, it is delivered to with others from now on."""
        if subscriber.subscription.next_seq <= feed.head:
            self.mark(subscriber)
        elif not self.is_blocked:
            feed.gather(subscriber)

    def _hand_over(self, subscriber: TopicSubscriber, segment: Segment) -> None:
        try:
            answer = Subscriptions.delivered(subscriber.subscription, segment.first_seq, segment.frames)
        except DeliveryBroken as error:
            self.broken(error)
            return
        subscriber.attempt = 0
        self._flusher.delivered(segment.frames, len(segment.data))
        self._write(segment.data, answer)

    def broken(self, error: BaseException) -> None:
        """End the connection after a defect of ours, because its client would otherwise wait forever."""
        _log.error("delivery_broken", connection_id=self._session.connection_id, exc_info=error)
        self._run(self._session.refused(Refusal("internal", "this is a defect on our side; connect again")))

    def ended(self, task: asyncio.Task[None]) -> None:
        """End the connection if `task`, one of its tasks, failed because of a defect."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken(error)

    # ----------------------------------------------------------------------------------- snapshots and history

    async def _writable(self) -> None:
        while self.is_blocked:
            if self._unblocked is None:
                self._unblocked = asyncio.Event()
            await self._unblocked.wait()

    async def read_snapshot(self, subscriber: TopicSubscriber) -> None:
        """Read and send the snapshot that `subscriber` begins with: one at a time, part by part, and only while the
        socket accepts data."""
        subscription = subscriber.subscription
        async with self._snapshot_turn:
            await self._writable()
            if subscription.live:
                await subscriber.read_snapshot(self._dependencies)
            while subscription.unsent is not None:
                await asyncio.sleep(0)  # let others have a turn between two parts
                await self._writable()
                self._run(self._session.subscriptions.snapshot_part(subscription))

    def _serve_history(self, subscriber: TopicSubscriber) -> None:
        """Write the next page if it was read a moment ago and no other topic waits for one; otherwise read it."""
        subscriber.waits = Waits.HISTORY
        if self._reading is None:
            subscription = subscriber.subscription
            page = self._dependencies.replays.kept(subscription.topic, subscription.epoch, subscription.next_seq - 1)
            if page is not None:
                self._dependencies.hub.learned(subscription.topic, page.state)
                self._take_page(subscriber, page)
                return
        self._behind.append(subscriber)
        if self._reading is None:
            name = f"replay-{self._session.connection_id}"
            self._reading = asyncio.create_task(self._read_pages(), name=name)
            self._reading.add_done_callback(self.ended)

    async def _read_pages(self) -> None:
        """Read one page at a time, for each of the waiting topics in turn."""
        try:
            while self._behind:
                subscriber = self._behind.pop(0)
                if subscriber.subscription.live:
                    await self._read_page(subscriber)
        finally:
            self._reading = None

    async def _read_page(self, subscriber: TopicSubscriber) -> None:
        subscription, replays = subscriber.subscription, self._dependencies.replays
        owner = subscriber.feed.owner if subscriber.feed else ""
        topic, after_seq = subscription.topic, subscription.next_seq - 1
        try:
            page = await replays.read(topic, subscription.epoch, after_seq, subscriber.registered_at, owner)
        except Refusal as refusal:
            self._page_refused(subscriber, refusal)
            return
        self._dependencies.hub.learned(topic, page.state)
        await self._writable()
        if subscription.live:
            self._take_page(subscriber, page)

    def _take_page(self, subscriber: TopicSubscriber, page: ReplayPage) -> None:
        subscription = subscriber.subscription
        try:
            segment = page.segment(self._transport.encoding)
        except Exception as error:  # noqa: BLE001 - see `serve`
            self.broken(error)
            return
        if page.epoch != subscription.epoch:
            self.broken(DeliveryBroken(f"{subscription.name}: history gave {page.epoch}, not {subscription.epoch}"))
        elif not segment.frames:
            self._try_later(subscriber)
        else:
            subscriber.waits = Waits.NOTHING
            self._hand_over(subscriber, segment)
            if subscription.live:
                self.mark(subscriber)

    def _page_refused(self, subscriber: TopicSubscriber, refusal: Refusal) -> None:
        subscription, feed = subscriber.subscription, subscriber.feed
        if not subscription.live or feed is None:
            return
        if refusal.reason in STALE_REASONS and feed.stands:
            self._dependencies.hub.outdated(subscription.topic)
            subscriber.stale(refusal.reason, state_said(refusal, feed.state))
        elif refusal.info.action is ClientAction.GIVE_UP:
            subscriber.refused(refusal)
        else:
            # The source is away or busy: the socket stays open, and delivery waits.
            connection_id, topic = self._session.connection_id, subscription.name
            _log.info("replay_postponed", connection_id=connection_id, topic=topic, reason=refusal.reason)
            self._try_later(subscriber)

    def _try_later(self, subscriber: TopicSubscriber) -> None:
        delay_ms = RECONNECT.wait_ms(subscriber.attempt, self._dependencies.jitter())
        subscriber.attempt += 1
        self._dependencies.alarms.add(subscriber, self._dependencies.now_ms() + delay_ms)
