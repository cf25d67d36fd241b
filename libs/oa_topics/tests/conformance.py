"""What every source of topics must do, through the door that gateways use: a service subclasses `TopicSourceSuite`.

Reading a stream as a gateway would, `Watch` asserts at each message that no frame comes before its topic's `watched`,
and that within a lineage nothing is left out but what a later `watched` covers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import grpc.aio
import pytest

from oa_base.refusal import Refusal
from oa_khala.topics import TopicClass, parse_topic
from oa_topics.store import TopicLimits
from oa_wire.status import STATUS_METADATA_KEY, from_status_bytes
from openagents.sync.v1 import frame_pb2
from openagents.sync.v1 import topic_service_pb2 as pb

WAIT_S = 60.0


class Source(Protocol):
    """A running source, and what can be done behind its door."""

    @property
    def stub(self) -> Any:
        """Its TopicService."""
        ...

    @property
    def metadata(self) -> Any:
        """Of a gateway's call."""
        ...

    @property
    def topics(self) -> tuple[str, str, str]:
        """Three topics that exist."""
        ...

    @property
    def foreign(self) -> str:
        """A topic of the other source."""
        ...

    async def commit(self, topic: str, count: int, size: int = 0) -> None:
        """Add `count` events of about `size` bytes to a topic, one commit."""
        ...

    async def lose(self, topic: str, seq: int) -> None:
        """Delete an event behind everybody's back."""
        ...


async def refused(call: Any) -> Refusal:
    """The refusal that a call must end with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    for key, value in caught.value.trailing_metadata() or ():
        if key == STATUS_METADATA_KEY and isinstance(value, bytes):
            refusal = from_status_bytes(value)
            assert refusal is not None
            return refusal
    raise AssertionError(f"no refusal came with {caught.value}")


async def describe(source: Source, topic: str) -> pb.DescribeTopicResponse:
    """Where a topic stands."""
    request = pb.DescribeTopicRequest(topic=topic)
    answer: pb.DescribeTopicResponse = await source.stub.DescribeTopic(request, metadata=source.metadata)
    return answer


async def replay(source: Source, topic: str, after_seq: int = 0, **more: Any) -> pb.ReplayTopicResponse:
    """A page of history."""
    epoch = more.pop("epoch", None) or (await describe(source, topic)).epoch
    request = pb.ReplayTopicRequest(topic=topic, epoch=epoch, after_seq=after_seq, **more)
    answer: pb.ReplayTopicResponse = await source.stub.ReplayTopic(request, metadata=source.metadata)
    return answer


def seqs_of(frames: pb.TopicFrames) -> list[int]:
    """Seqs of ready frames; they are consecutive and of their topic."""
    parsed = [frame_pb2.KhalaFrame.FromString(data) for data in frames.frames]
    for place, frame in enumerate(parsed):
        assert (frame.topic, frame.seq) == (frames.topic, frames.first_seq + place)
        assert (frame.kind, frame.schema_version) == (frame_pb2.FRAME_KIND_EVENT, 1)
    return [frame.seq for frame in parsed]


@dataclass
class Watch:
    """A Watch stream, read as a gateway would. `stands`: topic -> the seq up to which nothing is missing."""

    call: Any
    watched: dict[str, pb.WatchedTopic] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    stands: dict[str, int] = field(default_factory=dict)
    seqs: dict[str, list[int]] = field(default_factory=dict)
    times_watched: int = 0

    async def ask(self, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> None:
        """Add or remove topics."""
        await self.call.write(pb.WatchTopicsRequest(add_topics=add, remove_topics=remove))

    async def read(self) -> pb.WatchTopicsResponse:
        """The next message."""
        async with asyncio.timeout(WAIT_S):
            message = await self.call.read()
        assert message is not grpc.aio.EOF
        for watched in message.watched:
            self.times_watched += 1
            self.watched[watched.topic] = watched
            self.stands[watched.topic] = max(watched.head, self.stands.get(watched.topic, 0))
        self.refusals.update({one.topic: one.reason for one in message.refused})
        for batch in message.batches:
            assert batch.topic in self.watched, "frames must not overtake their watched"
            assert batch.epoch == self.watched[batch.topic].epoch
            seqs = seqs_of(batch)
            assert seqs[0] <= self.stands[batch.topic] + 1, "frames were lost, and no watched has said so"
            self.stands[batch.topic] = max(seqs[-1], self.stands[batch.topic])
            self.seqs.setdefault(batch.topic, []).extend(seqs)
        return message  # type: ignore[no-any-return]

    async def until(self, topic: str, seq: int) -> None:
        """Read until nothing is missing up to `seq`."""
        while self.stands.get(topic, -1) < seq:
            await self.read()


@contextlib.asynccontextmanager
async def watching(source: Source, *topics: str) -> AsyncIterator[Watch]:
    """A stream that carries `topics`."""
    watch = Watch(source.stub.WatchTopics(metadata=source.metadata))
    await watch.ask(topics)
    while not set(topics) <= watch.watched.keys() | watch.refusals.keys():
        await watch.read()
    yield watch
    watch.call.cancel()


class TopicSourceSuite:
    """Needs a fixture `source` that takes its limits from a fixture `limits`. `of`: the class of its topics."""

    of: ClassVar[TopicClass]

    @pytest.fixture
    def limits(self) -> TopicLimits:
        """The defaults; a test that reaches a limit has its own."""
        return TopicLimits()

    # ------------------------------------------------------------------------------------------- history

    async def test_its_topics_are_of_the_class(self, source: Source) -> None:
        assert {parse_topic(topic).topic_class for topic in source.topics} == {self.of}

    async def test_what_is_no_topic_of_this_source_is_refused(self, source: Source) -> None:
        for topic in ("nonsense", "run:x:events", source.foreign):
            refusal = await refused(describe(source, topic))
            assert (refusal.reason, refusal.field) == ("invalid_topic", "topic")
            refusal = await refused(replay(source, topic, epoch="e"))
            assert (refusal.reason, refusal.field) == ("invalid_topic", "topic")

    async def test_pages_join_without_a_hole_whatever_their_bounds(self, source: Source) -> None:
        topic = source.topics[0]
        await source.commit(topic, 12, 200)
        head = (await describe(source, topic)).head
        for bounds in ({"max_frames": 5}, {"max_bytes": 1000}, {"max_bytes": 1}, {}):
            seqs: list[int] = []
            while found := seqs_of((page := await replay(source, topic, len(seqs), **bounds)).page):
                assert len(found) <= bounds.get("max_frames", 500)
                assert (page.floor, page.head) == (0, head)
                seqs += found
            assert seqs == list(range(1, head + 1))

    async def test_a_cursor_that_can_not_be_served_is_told_where_the_topic_stands(self, source: Source) -> None:
        topic = source.topics[0]
        stands = await describe(source, topic)
        where = {"epoch": stands.epoch, "floor": "0", "head": str(stands.head)}
        for epoch, seq, reason in (
            ("other", 0, "epoch_mismatch"),
            (stands.epoch, stands.head + 1, "cursor_ahead_of_head"),
        ):
            refusal = await refused(replay(source, topic, seq, epoch=epoch))
            assert refusal.reason == reason
            assert refusal.metadata.items() >= where.items()
        assert list((await replay(source, topic, stands.head)).page.frames) == []

    async def test_an_event_that_is_missing_is_refused_after_everything_before_it(self, source: Source) -> None:
        topic = source.topics[0]
        await source.commit(topic, 6)
        head = (await describe(source, topic)).head
        lost = head - 2
        await source.lose(topic, lost)
        assert seqs_of((await replay(source, topic)).page) == list(range(1, lost))
        assert (await refused(replay(source, topic, lost - 1))).reason in {"archive_damaged", "internal"}
        assert seqs_of((await replay(source, topic, lost)).page) == [head - 1, head]

    async def test_what_follows_a_snapshot_begins_at_the_next_seq_and_continues_its_chain(self, source: Source) -> None:
        topic = source.topics[0]
        await source.commit(topic, 3)
        stands = await describe(source, topic)
        reading = source.stub.ReadSnapshot(pb.ReadSnapshotRequest(topic=topic), metadata=source.metadata)
        if not stands.snapshot_available and not stands.snapshot_on_request:
            assert (await refused(reading)).reason == "not_found"
            return
        found = await reading
        assert (found.epoch, found.seq) == (stands.epoch, stands.head)
        assert found.payload
        await source.commit(topic, 2)
        page = await replay(source, topic, found.seq, after_chain=found.chain)
        assert seqs_of(page.page) == [found.seq + 1, found.seq + 2]
        async with watching(source, topic) as watch:
            watched = watch.watched[topic]
        said = (stands.snapshot_available, stands.snapshot_on_request)
        assert (watched.snapshot_available, watched.snapshot_on_request) == said

    # ------------------------------------------------------------------------------------------- live

    async def test_what_is_committed_after_watched_comes_live_as_it_is_replayed(self, source: Source) -> None:
        topic, other, _ = source.topics
        async with watching(source, topic, other, "nonsense", source.foreign) as watch:
            assert watch.refusals == {"nonsense": "invalid_topic", source.foreign: "invalid_topic"}
            stands, described = watch.watched[topic], await describe(source, topic)
            assert (stands.epoch, stands.floor, stands.head) == (described.epoch, described.floor, described.head)
            assert (stands.owner_user_id, stands.owner_org_id) == (described.owner_user_id, described.owner_org_id)
            for _ in range(3):
                await source.commit(topic, 2)
            await watch.until(topic, stands.head + 6)
            assert watch.seqs == {topic: list(range(stands.head + 1, stands.head + 7))}

    async def test_delivery_checks_arrive_one_after_the_other(self, source: Source) -> None:
        watch = Watch(source.stub.WatchTopics(metadata=source.metadata))
        await watch.call.write(pb.WatchTopicsRequest(delivery_checks=True))
        first, second = [(await watch.read()).delivery_check for _ in range(2)]
        assert 0 < first < second
        watch.call.cancel()

    async def test_a_topic_that_is_added_again_is_said_again_where_it_stands(self, source: Source) -> None:
        topic = source.topics[0]
        async with watching(source, topic) as watch:
            await source.commit(topic, 1)
            await watch.until(topic, watch.watched[topic].head + 1)
            await watch.ask((topic,))
            before = watch.watched[topic].head
            while watch.watched[topic].head == before:
                await watch.read()

    async def test_a_topic_that_was_removed_is_not_carried(self, source: Source) -> None:
        kept, dropped, never = source.topics
        async with watching(source, kept, dropped) as watch:
            await watch.ask((kept,), (dropped, never, "nonsense"))
            while watch.times_watched < 3:
                await watch.read()
            await source.commit(dropped, 1)
            await source.commit(kept, 1)
            await watch.until(kept, watch.watched[kept].head + 1)
            assert dropped not in watch.seqs

    async def test_frames_never_overtake_their_watched_and_the_last_one_comes(self, source: Source) -> None:
        """Commits race the adding: whatever comes first, everything after `watched` comes, the very last too."""
        topic = source.topics[0]
        for _ in range(5):
            watch = Watch(source.stub.WatchTopics(metadata=source.metadata))
            writing = asyncio.create_task(self._write(source, topic, 5))
            await watch.ask((topic,))
            await writing
            await watch.until(topic, (await describe(source, topic)).head)
            watch.call.cancel()

    @staticmethod
    async def _write(source: Source, topic: str, count: int) -> None:
        for _ in range(count):
            await source.commit(topic, 1)

    @pytest.mark.parametrize("limits", [TopicLimits(watched_topics=2)])
    async def test_a_stream_carries_so_many_topics(self, source: Source) -> None:
        first, second, third = source.topics
        async with watching(source, first, second, third) as watch:
            assert watch.refusals == {third: "too_many_topics"}
            await watch.ask((third,), (first,))
            while third not in watch.watched:
                await watch.read()

    async def test_a_stream_ends_when_its_caller_has_said_everything(self, source: Source) -> None:
        async with watching(source, source.topics[0]) as watch:
            await watch.call.done_writing()
            async with asyncio.timeout(WAIT_S):
                assert await watch.call.read() is grpc.aio.EOF
