"""A TopicService as the gateway uses it: one Watch stream, kept up forever, and reads of history.

While the stream is down, nobody is told anything. When it stands again, all topics are added again. The answer for each
says where it stands now, which shows what was missed.

Where frames are also published, they may be taken from there: `PublishedFrames` says whether, and the source is told.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from oa_base.backoff import RECONNECT
from oa_base.refusal import Refusal
from oa_khala.frames import TopicState
from oa_khala.topics import run_events, user_runs
from oa_platform.health.failures import refusal_for_outsiders, refusal_from_rpc_error
from oa_topics.wire import origin_from_wire
from openagents.sync.v1 import topic_service_pb2, topic_service_pb2_grpc
from services.khala_gateway.sources.app.hedges import Hedges
from services.khala_gateway.sources.app.ports import HistoryPage, SourceEvents, TopicSnapshot, WatchedTopic
from services.khala_gateway.sources.app.published import PublishedFrames
from services.khala_gateway.sources.domain import Liveness
from services.khala_gateway.sources.limits import SourceLimits
from services.khala_gateway.sources.metrics import (
    FRAMES_PUBLISHED,
    REPLAYS_HEDGED,
    STRANGE_PUBLISHED,
    UPSTREAM_CHECKED,
    UPSTREAM_UP,
)

_log = structlog.get_logger(__name__)
# Maximum number of topics in one message (rules of WatchTopicsRequest).
_TOPICS_IN_A_MESSAGE = 1_000
_ROUTES = {True: topic_service_pb2.FRAME_ROUTE_SUBJECT, False: topic_service_pb2.FRAME_ROUTE_STREAM}
# For each source, a nonexistent topic to ask for while none is wanted: only its database knows whether it exists.
_NOBODYS = {
    "runtime": run_events("run_00000000000000000000000000"),
    "projector": user_runs("usr_00000000000000000000000000"),
}


class GrpcTopicSource:
    """See the module. Implements `TopicSource`; call `run` in the background."""

    def __init__(
        self,
        name: str,
        channel: grpc.aio.Channel,
        events: Callable[[], SourceEvents],
        jitter: Callable[[], float],
        limits: SourceLimits | None = None,
        published: PublishedFrames | None = None,
    ) -> None:
        """`events` returns the receiver of events; it is called late, because the receiver in turn needs its sources.
        `published` is what the source publishes, if frames are to be taken from there."""
        self.name = name
        self._channel = channel
        self._stub = topic_service_pb2_grpc.TopicServiceStub(channel)
        self._events = events
        self._jitter = jitter
        self._limits = limits or SourceLimits()
        self._wanted: dict[str, None] = {}
        self._to_add: dict[str, None] = {}
        self._to_remove: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._published = published
        if published is not None:
            published.bind(self._take_published, self._changed.set)
        self._was_up = False
        self._stands = False
        self._hedges = Hedges(self._limits.hedge_ms, self._limits.concurrent_hedges)
        self._liveness = Liveness(self._limits, _now_s())
        self._was_away = False
        # The stream that stands, if one does.
        self._stream: object | None = None
        # Why the source can't be used at present.
        self.refusal: Refusal | None = Refusal("unavailable", f"{name} has not been reached yet; try again")

    def add(self, topics: Iterable[str]) -> None:
        """Carry `topics`. Each is answered by `watched` or `refused`, even if it is carried already."""
        for topic in topics:
            self._wanted[topic] = None
            self._to_add[topic] = None
            self._to_remove.pop(topic, None)
            if self._published is not None:
                self._published.add((topic,))
        self._changed.set()

    def remove(self, topics: Iterable[str]) -> None:
        """Stop carrying `topics`."""
        for topic in topics:
            self._wanted.pop(topic, None)
            self._to_add.pop(topic, None)
            self._to_remove[topic] = None
            if self._published is not None:
                self._published.remove((topic,))
        self._changed.set()

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        """The page from `after_seq + 1` on. Raises Refusal: the source's own, or `unavailable`, `deadline_exceeded`."""
        request = topic_service_pb2.ReplayTopicRequest(
            topic=topic,
            epoch=epoch,
            after_seq=after_seq,
            max_frames=max_frames,
            max_bytes=max_bytes,
            after_chain=after_chain,
        )
        answer = await self._hedges.first(lambda: self._replay(request), REPLAYS_HEDGED.labels(self.name).inc)
        page = answer.page
        first_seq = page.first_seq if page.frames else after_seq + 1
        return HistoryPage(page.epoch or epoch, first_seq, page.frames, answer.floor, answer.head)

    async def _replay(self, request: topic_service_pb2.ReplayTopicRequest) -> topic_service_pb2.ReplayTopicResponse:
        try:
            answer: topic_service_pb2.ReplayTopicResponse = await self._stub.ReplayTopic(
                request, timeout=self._limits.replay_timeout_ms / 1000
            )
        except grpc.aio.AioRpcError as error:
            raise refusal_for_outsiders(error, self.name) from None
        return answer

    async def snapshot(self, topic: str, max_bytes: int) -> TopicSnapshot:
        """The topic's state; the state of a list in at most `max_bytes`.

        Raises Refusal: the source's own, or `unavailable`, `deadline_exceeded`.
        """
        request = topic_service_pb2.ReadSnapshotRequest(topic=topic, max_bytes=max_bytes)
        try:
            found = await self._stub.ReadSnapshot(request, timeout=self._limits.replay_timeout_ms / 1000)
        except grpc.aio.AioRpcError as error:
            raise refusal_for_outsiders(error, self.name) from None
        return TopicSnapshot(found.epoch, found.seq, found.payload, found.chain)

    async def check(self) -> None:
        """Check readiness. Raises Refusal until the source has been reached once and has accepted us."""
        if self.refusal is not None and not self._was_up:
            raise self.refusal

    async def check_delivery(self) -> None:
        """Check readiness. Raises Refusal also when nothing has come from the source for a long time.

        Open sockets stay open; new ones should go to a gateway that can serve them.
        """
        await self.check()
        if self._liveness.gone(_now_s()):
            raise Refusal("unavailable", f"{self.name} delivers nothing now; wait until it does")

    async def run(self) -> None:
        """Keep the stream up until canceled."""
        attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._reach()
                await self._watch()
                refusal = Refusal("unavailable", f"{self.name} ended the stream; try again")
            except grpc.aio.AioRpcError as error:
                refusal = refusal_from_rpc_error(error)
            self.refusal = refusal
            steady = (loop.time() - began) * 1000 >= self._limits.steady_ms
            attempt = 0 if steady else attempt + 1
            _log.warning("upstream_lost", source=self.name, reason=refusal.reason, attempt=attempt)
            await asyncio.sleep(RECONNECT.wait_ms(attempt, self._jitter()) / 1000)

    @property
    def away(self) -> bool:
        """Whether it delivers nothing at present."""
        return not self._stands or self._liveness.stopped(_now_s())

    async def run_looking(self) -> None:
        """Check periodically, until canceled, whether the source delivers.

        An open stream proves nothing: a source whose process or database has stopped keeps it open. So the stream has
        to bring delivery checks. Until it does, the source is asked for something that it has to look up.
        """
        while True:
            why = None
            if self._liveness.to_ask:
                why = await self._ask()
                self._liveness.asked(why is None, _now_s())
            self._note(why)
            self._tell()
            await asyncio.sleep(self._limits.ask_interval_ms / 1000)

    def _note(self, why: Refusal | None) -> None:
        """Log when the source stops delivering, or starts again."""
        stopped = self._liveness.stopped(_now_s())
        if stopped and not self._was_away:
            why = why or Refusal(
                "unavailable", "its stream brings no delivery checks; look whether its database takes writes"
            )
            _log.warning("upstream_silent", source=self.name, reason=why.reason, why=why.message)
        elif self._was_away and not stopped:
            _log.info("upstream_answers", source=self.name)
        self._was_away = stopped

    async def _ask(self) -> Refusal | None:
        """Why the source does not answer; None when it does, even if it answers that there is no such topic."""
        topic = next(iter(self._wanted), _NOBODYS.get(self.name, ""))
        request = topic_service_pb2.DescribeTopicRequest(topic=topic)
        try:
            await self._stub.DescribeTopic(request, timeout=self._limits.answer_ms / 1000)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_from_rpc_error(error)
            return None if refusal.reason == "not_found" else refusal
        return None

    def _tell(self) -> None:
        UPSTREAM_UP.labels(self.name).set(0 if self.away else 1)

    async def _reach(self) -> None:
        """Return once the source can be called; until then, log periodically why it can't."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.reach_ms / 1000):
                    return await self._channel.channel_ready()
            await self._say_why()

    async def _say_why(self) -> None:
        """Log why the channel waits. The channel doesn't tell; a call on it fails at once, with the reason."""
        try:
            await self._stub.ReplayTopic(topic_service_pb2.ReplayTopicRequest(), timeout=self._limits.reach_ms / 1000)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_from_rpc_error(error)
            if refusal.reason == "unavailable":
                self.refusal = self.refusal if self._was_up else refusal
                _log.warning("upstream_unreachable", source=self.name, why=refusal.message)

    async def _watch(self) -> None:
        self._to_add = dict(self._wanted)
        self._to_remove.clear()
        self._liveness.began()
        self._changed.set()
        settled = asyncio.get_running_loop().call_later(self._limits.settle_ms / 1000, self._settled)
        stream = self._stream = object()
        try:
            async for message in self._stub.WatchTopics(self._requests(stream)):
                self._take(message)
        finally:
            self._stream = None
            self._changed.set()
            settled.cancel()
            self._stands = False
            if self._published is not None:
                self._published.ended()
            self._tell()

    def _settled(self) -> None:
        self.refusal = None
        self._was_up = self._stands = True
        self._tell()
        _log.info("upstream_up", source=self.name, topics=len(self._wanted))

    async def _requests(self, stream: object) -> AsyncIterator[topic_service_pb2.WatchTopicsRequest]:
        yield topic_service_pb2.WatchTopicsRequest(delivery_checks=True)
        told = False
        while True:
            await self._changed.wait()
            if stream is not self._stream:
                # gRPC keeps the requests of a broken call waiting: they must not take what belongs to the next call.
                return
            add, remove = _pop_some(self._to_add), _pop_some(self._to_remove)
            if not self._to_add and not self._to_remove:
                self._changed.clear()
            if self._published is not None and self._published.by_subject != told:
                told = self._published.by_subject
                yield topic_service_pb2.WatchTopicsRequest(frame_route=_ROUTES[told])
            if add or remove:
                yield topic_service_pb2.WatchTopicsRequest(add_topics=add, remove_topics=remove)

    def _take(self, message: topic_service_pb2.WatchTopicsResponse) -> None:
        events = self._events()
        for watched in message.watched:
            snapshots = watched.snapshot_available, watched.snapshot_on_request
            state = TopicState(watched.epoch, watched.floor, watched.head, *snapshots)
            events.watched(WatchedTopic(watched.topic, state, watched.owner_user_id, watched.owner_org_id))
        for refused in message.refused:
            text = refused.message or "the source does not carry this topic; check its name"
            events.refused(refused.topic, Refusal.received(refused.reason, text))
        for batch in message.batches:
            events.frames(batch.topic, batch.epoch, batch.first_seq, batch.frames, origin_from_wire(batch))
        if message.delivery_check:
            self._liveness.checked(message.delivery_check, _now_s())
            UPSTREAM_CHECKED.labels(self.name).set_to_current_time()
            if self._published is not None:
                self._published.announced(message.subject, self._wanted)
                self._published.came_on_stream(_now_s())

    def _take_published(self, data: bytes) -> None:
        """Take only frames and delivery checks, because only the stream says where topics stand."""
        try:
            message = topic_service_pb2.WatchTopicsResponse.FromString(data)
        except DecodeError:
            STRANGE_PUBLISHED.labels(self.name).inc()
            return
        for batch in message.batches:
            FRAMES_PUBLISHED.labels(self.name).inc(len(batch.frames))
            self._events().frames(batch.topic, batch.epoch, batch.first_seq, batch.frames, origin_from_wire(batch))
        if message.delivery_check and self._published is not None:
            self._published.came(message.delivery_check, _now_s())


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _pop_some(topics: dict[str, None]) -> list[str]:
    some = list(topics)[:_TOPICS_IN_A_MESSAGE]
    for topic in some:
        del topics[topic]
    return some
