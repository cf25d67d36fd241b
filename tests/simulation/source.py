"""A source of topics as the gateways see it: the real `oa_topics` code over a simulated database and network.

Each gateway has a replica of each source to itself. Runtime's replicas hear of every commit, in order, as its tail
does; the projector's are told of some commits, late or twice or not at all, and look now and then.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog

from oa_base.refusal import Refusal
from oa_khala.topics import RUN_EVENTS, Source, Topic, parse_topic
from oa_topics.delivery_checks import DeliveryChecks
from oa_topics.hub import TopicHub
from oa_topics.publisher import FramePublisher
from oa_topics.servicer import TopicApi
from oa_topics.store import StateAt, TopicDescription, TopicLimits
from oa_wire.status import STATUS_METADATA_KEY, to_status
from openagents.sync.v1 import topic_service_pb2 as pb
from tests.simulation.subjects import CHECKED_EVERY_S, SimSubjects
from tests.simulation.world import USER, Log, Weather, World

_log = structlog.get_logger(__name__)
T = TypeVar("T")


class SimTopics:
    """`TopicStore` over the world's logs: a database that is asked at some moment, and may be away."""

    def __init__(self, world: World, source: Source) -> None:
        self.source: Source = source
        self._world = world

    async def epoch(self) -> str:
        """See TopicStore."""
        (log,) = (log for name, log in self._world.logs.items() if parse_topic(name).source == self.source)
        return log.epoch

    async def describe(self, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        """See TopicStore."""
        await self._asked()
        logs = self._world.logs
        found = {topic: TopicDescription(topic, logs[str(topic)].state, USER) for topic in topics if str(topic) in logs}
        await self._answered()
        return found

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        await self._asked()
        log = self._log(topic)
        last = min(log.head, after_seq + max_events)
        events = [(seq, log.payload(log.epoch, seq)) for seq in range(max(after_seq, log.floor) + 1, last + 1)]
        await self._answered()
        return events

    async def snapshot(self, topic: Topic, max_bytes: int) -> StateAt | None:
        """See TopicStore."""
        await self._asked()
        log = self._log(topic)
        found = StateAt(log.head, *log.snapshot())
        await self._answered()
        return found

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore."""
        await self._asked()
        log = self._log(topic)
        return log.chain(seq) if log.floor <= seq <= log.head else None

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore. Between two questions the log may have been replaced, and may be shorter now."""
        return Refusal("unavailable", f"{topic} has no {seq} now")

    def _log(self, topic: Topic) -> Log:
        return self._world.logs[str(topic)]

    async def _asked(self) -> None:
        await asyncio.sleep(self._world.delay_s())
        if self._world.rng.random() < self._world.weather.refuse:
            raise Refusal("unavailable", "the database is away")

    async def _answered(self) -> None:
        # In quiet weather one pause a question is enough: pauses are most of what a schedule costs.
        if self._world.weather.max_delay_s > Weather.max_delay_s:
            await asyncio.sleep(self._world.delay_s())


class _Noted:
    """`HubReport` in the log, where the schedules' tests find it."""

    def watching(self, difference: int) -> None:
        """See HubReport."""

    def dropped(self, frames: int) -> None:
        """See HubReport."""
        _log.info("frames_dropped")

    def failed(self, topic: str, error: Exception) -> None:
        """See HubReport."""
        raise error


async def _nothing() -> None:
    """What a check of delivery writes is no part of the simulation."""


class SimReplica:
    """One replica of a source, and the channel that a gateway has to it."""

    def __init__(self, world: World, source: Source, limits: TopicLimits, subjects: SimSubjects | None = None) -> None:
        self._world = world
        self._source = source
        self._limits = limits
        self._subjects = subjects
        self.channel = SimChannel(world)
        self._begin()
        world.replicas.append(self)

    def _begin(self) -> None:
        publisher = self._publisher()
        self.hub = TopicHub(SimTopics(self._world, self._source), self._limits, _Noted(), publisher)
        checks = DeliveryChecks(_nothing)
        self.channel.api = TopicApi(self.hub, checks, lambda method, refusal: None)
        self._running = [asyncio.create_task(self.hub.run())]
        if publisher is not None:
            works = publisher.run(), self._check(checks, publisher)
            self._running += [asyncio.create_task(work) for work in works]

    def _publisher(self) -> FramePublisher | None:
        if self._subjects is None:
            return None
        return FramePublisher(self._subjects, self._subjects.another(), self._limits.pending_bytes, lambda _: None)

    async def _check(self, checks: DeliveryChecks, publisher: FramePublisher) -> None:
        """Hear of a delivery check now and then, and tell the heads: often, for most schedules are over in seconds."""
        number = 0
        while True:
            await asyncio.sleep(CHECKED_EVERY_S)
            self.hub.tell_heads()
            number += 1
            checks.heard(number)
            publisher.check(number)

    def _stop(self) -> None:
        for task in self._running:
            task.cancel()

    def crash(self) -> None:
        """Lose everything in memory, and every call that is under way. Whoever calls again finds another process."""
        self.channel.down()
        self._stop()
        self._begin()

    def close(self) -> None:
        """Be gone."""
        self.channel.down()
        self._stop()
        self._world.replicas.remove(self)

    def committed(self, topic: Topic, events: Sequence[tuple[int, bytes]]) -> None:
        """Hear of a commit, as this kind of source does."""
        if topic.source != self._source:
            return
        if topic.topic_class is RUN_EVENTS:
            self.hub.publish(str(topic), events)
            return
        rng, weather = self._world.rng, self._world.weather
        epoch = self._world.logs[str(topic)].epoch
        for _ in range(2 if rng.random() < weather.repeat else 1):
            if rng.random() >= weather.lose:
                self._world.later(lambda: self._word(topic, epoch, events))

    def _word(self, topic: Topic, epoch: str, events: Sequence[tuple[int, bytes]]) -> None:
        # A projector tells of what it wrote itself, and none outlives the database that it wrote to.
        if self._world.logs[str(topic)].epoch == epoch:
            self.hub.publish(str(topic), events)

    def restart(self, source: Source) -> None:
        """The log has another past."""
        if source == self._source:
            self.hub.restart()


class SimChannel:
    """What `GrpcTopicSource` needs of a channel: calls of TopicService that take time, fail, and break off."""

    api: TopicApi

    def __init__(self, world: World) -> None:
        self._world = world
        self._up = asyncio.Event()
        self._up.set()
        # A dict, because the order decides what comes of a seed.
        self._under_way: dict[asyncio.Future[Any], None] = {}

    def down(self) -> None:
        """The way breaks, and every call on it."""
        if self._up.is_set():
            self._up.clear()
            self._break()

    def _break(self) -> None:
        under_way, self._under_way = self._under_way, {}
        for task in under_way:
            task.cancel()

    def up(self) -> None:
        """It can be gone again."""
        if not self._up.is_set():
            self._up.set()

    async def channel_ready(self) -> None:
        """Returns when the other end can be reached."""
        await self._up.wait()

    def unary_unary(self, path: str, **_: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
        """A method, by its path."""
        name = path.rpartition("/")[2]

        async def call(request: Any, timeout: float) -> Any:
            try:
                async with asyncio.timeout(timeout):
                    return await self._carried(getattr(self.api, name)(request, None))
            except TimeoutError:
                raise _error(Refusal("deadline_exceeded", "it took too long")) from None

        return call

    def stream_stream(self, path: str, **_: Any) -> Callable[..., AsyncIterator[Any]]:
        """A method, by its path."""
        name = path.rpartition("/")[2]
        return lambda requests: self._messages(getattr(self.api, name)(self._requests(requests), None))

    async def _requests(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            await asyncio.sleep(self._world.delay_s())
            yield request

    async def _messages(self, answers: AsyncIterator[pb.WatchTopicsResponse]) -> AsyncIterator[pb.WatchTopicsResponse]:
        """In order, each a while after the one before has been taken: a slow reader makes the source wait."""
        try:
            message: pb.WatchTopicsResponse | None
            while (message := await self._carried(anext(answers, None))) is not None:
                for one in self._out_of_order(message):
                    yield one
        finally:
            await answers.aclose()  # type: ignore[attr-defined]

    def _out_of_order(self, message: pb.WatchTopicsResponse) -> list[pb.WatchTopicsResponse]:
        """Live frames may come out of order, and twice: no more is promised than that none is lost unseen."""
        rng = self._world.rng
        if not message.batches or rng.random() >= self._world.weather.disorder:
            return [message]
        batch = message.batches.pop()
        cut = rng.randint(0, len(batch.frames))
        parts = [(batch.first_seq + cut, batch.frames[cut:]), (batch.first_seq, batch.frames[: cut + 1])]
        late = [
            pb.TopicFrames(topic=batch.topic, epoch=batch.epoch, first_seq=first_seq, frames=frames)
            for first_seq, frames in parts
            if frames
        ]
        return [message, *(pb.WatchTopicsResponse(batches=[one]) for one in late)]

    async def _carried(self, work: Coroutine[Any, Any, T] | Any) -> T:
        """What `work` gives, after a while; an error when it refuses or the way breaks."""
        task = asyncio.ensure_future(_later(self._world.delay_s(), work))
        self._under_way[task] = None
        if not self._up.is_set():
            asyncio.get_running_loop().call_soon(self._break)
        caller = asyncio.current_task()
        try:
            return await task  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if task in self._under_way or (caller is not None and caller.cancelling()):
                raise  # it is the caller who has gone
            raise _error(Refusal("unavailable", "the way is broken")) from None
        except Refusal as refusal:
            raise _error(refusal) from None
        finally:
            self._under_way.pop(task, None)
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            if inspect.iscoroutine(work):
                work.close()  # the way may have broken before it began


async def _later(delay_s: float, work: Any) -> Any:
    result = await work
    await asyncio.sleep(delay_s)
    return result


def _error(refusal: Refusal) -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata((STATUS_METADATA_KEY, to_status(refusal).SerializeToString()))
    return grpc.aio.AioRpcError(grpc.StatusCode[refusal.info.grpc_code], grpc.aio.Metadata(), trailers, refusal.message)
