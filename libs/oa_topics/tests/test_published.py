"""Frames that are published for those who take them there: what streams carry beside them, and what mends losses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from oa_testing.waiting import eventually
from oa_topics.delivery_checks import DeliveryChecks
from oa_topics.hub import TopicHub
from oa_topics.publisher import FramePublisher
from oa_topics.servicer import TopicApi
from oa_topics.store import TopicLimits
from oa_topics.tests.memory_topics import Counted, MemoryTopics, seqs
from oa_topics.watcher import Origin
from oa_topics.wire import origin_from_wire
from openagents.sync.v1 import topic_service_pb2 as pb

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
U = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6Y:events"
SUBJECT = "source.one"


class Transport:
    """A `Transport` that keeps what it gets, and takes it while its gate is open."""

    def __init__(self) -> None:
        self.max_bytes = 10_000
        self.messages: list[tuple[str, pb.WatchTopicsResponse]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, subject: str, data: bytes) -> None:
        await self.gate.wait()
        self.messages.append((subject, pb.WatchTopicsResponse.FromString(data)))

    def seqs(self, topic: str) -> list[int]:
        return [seq for subject, message in self.messages if subject == f"{SUBJECT}.{topic}" for seq in seqs(message)]


class Source:
    """A hub that publishes, and its streams."""

    def __init__(self) -> None:
        self.store, self.transport, self.published = MemoryTopics({T: [], U: []}), Transport(), list[int]()
        self.publisher = FramePublisher(self.transport, SUBJECT, 1_000, self.published.append)
        self.hub = TopicHub(self.store, TopicLimits(), Counted(), self.publisher)
        self.checks = DeliveryChecks(self._commit)
        self.api = TopicApi(self.hub, self.checks, lambda method, refusal: None)
        self.running = asyncio.create_task(self.publisher.run())

    async def _commit(self) -> None:
        raise AssertionError

    def commit(self, topic: str, *payloads: bytes, origin: Origin | None = None) -> None:
        self.hub.publish(topic, self.store.append(topic, *payloads), origin)

    async def watched(self, *topics: str, by_subject: bool = False) -> Stream:
        """A stream that carries `topics`."""
        stream = Stream(self.api)
        if by_subject:
            stream.ask(frame_route=pb.FRAME_ROUTE_SUBJECT)
        stream.ask(add_topics=topics)
        assert len((await stream.next()).watched) == len(topics)
        return stream


class Stream:
    """One Watch stream."""

    def __init__(self, api: TopicApi) -> None:
        self._requests: asyncio.Queue[pb.WatchTopicsRequest] = asyncio.Queue()
        self.asked = 0
        self._answers = api.WatchTopics(self._asked(), None)

    async def _asked(self) -> AsyncIterator[pb.WatchTopicsRequest]:
        while True:
            yield await self._requests.get()

    def ask(self, **fields: object) -> None:
        self.asked += 1
        self._requests.put_nowait(pb.WatchTopicsRequest(**fields))  # type: ignore[arg-type]

    async def next(self) -> pb.WatchTopicsResponse:
        async with asyncio.timeout(60):
            return await anext(self._answers)


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    made = Source()
    yield made
    made.running.cancel()
    await asyncio.gather(made.running, return_exceptions=True)


def heads(answer: pb.WatchTopicsResponse) -> dict[str, int]:
    return {batch.topic: batch.first_seq - 1 for batch in answer.batches if not batch.frames}


async def test_frames_are_published_once_and_come_on_the_streams_of_those_alone_who_did_not_ask(source: Source) -> None:
    streams = [await source.watched(T, by_subject=True) for _ in range(3)]
    other = await source.watched(T, U)
    source.commit(T, b"1", b"2")
    source.commit(U, b"1")
    await eventually(lambda: source.transport.seqs(T) == [1, 2])
    (message,) = (message for _, message in source.transport.messages)
    assert (message.batches[0].topic, message.batches[0].epoch) == (T, "e1")
    assert source.transport.seqs(U) == [], "nobody takes it there"
    assert seqs(await other.next()) == [1, 2, 1]
    assert sum(source.published) == 2
    for stream in streams:
        stream.ask(add_topics=[U])
        answer = await stream.next()
        assert ([one.topic for one in answer.watched], seqs(answer)) == ([U], [])


@pytest.mark.parametrize("recorded_ns", [1_700_000_000_123_456_789, 0])
async def test_frames_say_where_they_come_from_whichever_way_they_take(source: Source, recorded_ns: int) -> None:
    origin = Origin(recorded_ns, f"00-{'a' * 32}-{'b' * 16}-01")
    taking, other = await source.watched(T, by_subject=True), await source.watched(T)
    source.commit(T, b"1", origin=origin)
    source.commit(T, b"2")
    await eventually(lambda: source.transport.seqs(T) == [1, 2])
    batches = [message.batches[0] for _, message in source.transport.messages]
    assert [origin_from_wire(batch) for batch in batches] == [origin, None]
    (on_stream,) = (await other.next()).batches
    assert origin_from_wire(on_stream) == origin
    assert taking.asked, "it takes frames as long as somebody holds it"


async def test_where_published_topics_stand_is_told_when_their_frames_have_had_time(source: Source) -> None:
    stream, other = await source.watched(T, U, by_subject=True), await source.watched(T)
    source.commit(T, b"1", b"2")
    source.hub.tell_heads()
    source.commit(T, b"3")
    source.hub.tell_heads()
    assert heads(await stream.next()) == {T: 2}
    source.hub.tell_heads()
    assert heads(await stream.next()) == {T: 3}
    source.hub.tell_heads()
    source.commit(U, b"1")
    stream.ask(frame_route=pb.FRAME_ROUTE_STREAM, add_topics=[T])
    assert len((await stream.next()).watched) == 1
    source.hub.tell_heads()
    source.hub.tell_heads()
    assert heads(await stream.next()) == {U: 1}, "what was published before may have been lost all the same"
    assert heads(await other.next()) == {}


async def test_a_head_of_another_past_is_not_told(source: Source) -> None:
    stream = await source.watched(T, by_subject=True)
    source.commit(T, b"1", b"2")
    source.hub.tell_heads()
    source.store.lineage, source.store.events[T] = "e2", [b"a"]
    source.hub.restart()
    source.hub.tell_heads()
    answer = await stream.next()
    assert ([watched.epoch for watched in answer.watched], heads(answer)) == (["e2"], {})
    source.commit(T, b"b")
    await eventually(lambda: len(source.transport.messages) == 2)
    assert source.transport.messages[-1][1].batches[0].epoch == "e2"


async def test_what_can_not_be_published_comes_on_the_stream(source: Source) -> None:
    stream = await source.watched(T, by_subject=True)
    source.transport.max_bytes = 0
    source.commit(T, b"1")
    assert seqs(await stream.next()) == [1]
    source.transport.max_bytes = 500
    source.commit(T, b"x" * 600)
    assert seqs(await stream.next()) == [2]
    source.transport.gate.clear()
    for _ in range(6):
        source.commit(T, b"y" * 200)
        await asyncio.sleep(0)
    on_stream = seqs(await stream.next())
    assert on_stream, "more than may wait"
    source.transport.gate.set()
    await eventually(lambda: sorted(source.transport.seqs(T) + on_stream) == list(range(3, 9)))


async def test_checks_are_published_and_tell_streams_where(source: Source) -> None:
    stream = await source.watched(T)
    stream.ask(delivery_checks=True, add_topics=[U])
    assert len((await stream.next()).watched) == 1
    source.checks.heard(7)
    source.publisher.check(7)
    answer = await stream.next()
    assert (answer.delivery_check, answer.subject) == (7, SUBJECT)
    await eventually(lambda: len(source.transport.messages) == 1)
    assert source.transport.messages == [(f"{SUBJECT}.check", pb.WatchTopicsResponse(delivery_check=7))]


async def test_heads_are_told_again_and_again(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oa_topics.hub.HEADS_INTERVAL_S", 0.001)
    stream = await source.watched(T, by_subject=True)
    running = asyncio.create_task(source.hub.run_heads())
    for seq in (1, 2):
        source.commit(T, b"x")
        assert heads(await stream.next()) == {T: seq}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
