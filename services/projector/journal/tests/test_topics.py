"""Summary topics through TopicService: history, live frames, and the conformance suite of every source."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from oa_khala.topics import ORG_RUNS, USER_RUNS
from oa_platform.postgres.pool import Postgres
from oa_platform.tests.traces import collected
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from oa_topics.store import TopicLimits
from oa_topics.tests.conformance import Source, TopicSourceSuite
from oa_topics.tests.conformance import replay as replay_of
from oa_topics.watcher import Origin
from oa_topics.wire import origin_from_wire
from openagents.projection.v1 import run_summary_pb2
from openagents.runtime.v1 import log_service_pb2
from openagents.sync.v1 import frame_pb2, topic_service_pb2
from services.projector.summaries.app import APPLY
from services.projector.tests import histories as h
from services.projector.tests.doors import MINE, OURS, Doors, as_gateway, refused
from services.projector.tests.fake_log import FakeLog, serving
from services.projector.tests.rig import Rig, running
from services.projector.tests.source import ProjectorSource

TRACE_ID = "a" * 32


def frames_of(page: topic_service_pb2.TopicFrames) -> list[tuple[int, run_summary_pb2.RunSummary]]:
    """(seq, summary) of ready frames."""
    frames = [frame_pb2.KhalaFrame.FromString(data) for data in page.frames]
    for place, frame in enumerate(frames):
        assert (frame.topic, frame.kind, frame.schema_version) == (page.topic, frame_pb2.FRAME_KIND_EVENT, 1)
        assert frame.seq == page.first_seq + place
    return [(frame.seq, run_summary_pb2.RunSummary.FromString(frame.payload_bytes)) for frame in frames]


async def describe(doors: Doors, topic: str) -> topic_service_pb2.DescribeTopicResponse:
    request = topic_service_pb2.DescribeTopicRequest(topic=topic)
    return await doors.topics.DescribeTopic(request, metadata=as_gateway())


async def test_a_topic_without_rows_has_head_0_and_an_owner(rig: Rig, doors: Doors) -> None:
    mine, ours = await describe(doors, MINE), await describe(doors, OURS)
    assert (mine.head, mine.floor, mine.owner_user_id, mine.owner_org_id) == (0, 0, h.USER, "")
    assert (ours.head, ours.floor, ours.owner_user_id, ours.owner_org_id) == (0, 0, "", h.ORG)
    assert mine.epoch == ours.epoch == rig.lineage.epoch


async def replay(doors: Doors, after_seq: int = 0, **bounds: Any) -> topic_service_pb2.ReplayTopicResponse:
    epoch = bounds.pop("epoch", None) or (await describe(doors, MINE)).epoch
    request = topic_service_pb2.ReplayTopicRequest(topic=MINE, epoch=epoch, after_seq=after_seq, **bounds)
    return await doors.topics.ReplayTopic(request, metadata=as_gateway())


async def test_cursors_that_do_not_fit_are_refused_with_where_the_topic_stands(
    rig: Rig, doors: Doors, projector_database: Database
) -> None:
    await rig.fill()
    owner = await asyncpg.connect(projector_database.projector)
    await owner.execute("UPDATE topic_heads SET floor = 2")
    await owner.close()
    assert (await refused(replay(doors, 2, epoch="other"))).reason == "epoch_mismatch"
    assert (await refused(replay(doors, 1))).reason == "retention_floor_breach"
    refusal = await refused(replay(doors, 6))
    assert refusal.reason == "cursor_ahead_of_head"
    assert (refusal.metadata["head"], refusal.metadata["floor"]) == ("5", "2")
    assert len((await replay(doors, 2)).page.frames) == 3
    assert list((await replay(doors, 5)).page.frames) == []


class Watch:
    """A Watch stream, read as a gateway would."""

    def __init__(self, doors: Doors) -> None:
        self.call: Any = doors.topics.WatchTopics(metadata=as_gateway())
        self.watched: dict[str, topic_service_pb2.WatchedTopic] = {}
        self.seqs: list[int] = []
        self.origins: list[Origin | None] = []

    async def ask(self, **changes: Any) -> None:
        """Add or remove topics."""
        await self.call.write(topic_service_pb2.WatchTopicsRequest(**changes))

    async def read(self) -> topic_service_pb2.WatchTopicsResponse:
        """The next answer; frames must be of topics that are watched."""
        answer: topic_service_pb2.WatchTopicsResponse = await asyncio.wait_for(self.call.read(), PATIENCE_S)
        self.watched.update({topic.topic: topic for topic in answer.watched})
        for batch in answer.batches:
            assert batch.topic in self.watched
            self.seqs += [seq for seq, _ in frames_of(batch)]
            self.origins.append(origin_from_wire(batch))
        return answer

    async def until_seq(self, seq: int) -> None:
        """Read until a frame of `seq` has come."""
        while not self.seqs or self.seqs[-1] < seq:
            await self.read()


async def test_what_is_committed_after_watched_comes_live_and_in_order(rig: Rig, doors: Doors) -> None:
    await rig.fill(1)
    watch = Watch(doors)
    await watch.ask(add_topics=[MINE, "nonsense", f"run:{h.ulid('run', 1)}:events"])
    answer = await watch.read()
    assert watch.watched[MINE].head == 1
    assert watch.watched[MINE].owner_user_id == h.USER
    assert {topic.topic: topic.reason for topic in answer.refused} == {
        "nonsense": "invalid_topic",
        f"run:{h.ulid('run', 1)}:events": "invalid_topic",
    }
    checkpoint = await rig.checkpoint()
    for number in range(2, 6):
        checkpoint = await rig.apply(checkpoint, h.whole_run(number))
    await watch.until_seq(5)
    assert watch.seqs == [2, 3, 4, 5]


async def test_frames_of_what_a_traced_commit_led_to_have_its_trace(rig: Rig, doors: Doors) -> None:
    def traced(_: int, message: log_service_pb2.TailLogResponse) -> log_service_pb2.TailLogResponse:
        message.traceparent = f"00-{TRACE_ID}-{'b' * 16}-01" if message.first_position == 1 else ""
        return message

    watch = Watch(doors)
    await watch.ask(add_topics=[MINE])
    await watch.read()
    log = FakeLog({0: []}, page=100, meddle=traced)
    with collected() as spans:
        async with serving(log) as channel, running(rig.tail(channel)):
            await log.append(0, h.whole_run(1))
            await watch.until_seq(1)
            await log.append(0, h.whole_run(2))
            await watch.until_seq(2)
        (span,) = (one for one in spans.get_finished_spans() if one.name == APPLY)
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, "b" * 16)
    assert watch.origins == [Origin(0, f"00-{TRACE_ID}-{span.context.span_id:016x}-01"), None]


@pytest.mark.parametrize("limits", [TopicLimits(poll_interval_ms=20, page_frames=2)])
async def test_another_replicas_commits_come_too(rig: Rig, doors: Doors, postgres: Postgres) -> None:
    """They are found in the journal, page by page: the hub is told of its own process's commits only."""
    watch = Watch(doors)
    await watch.ask(add_topics=[MINE])
    await watch.read()
    other = Rig(postgres)
    await other.fill(3)
    await rig.apply(await rig.checkpoint(), h.whole_run(3))
    await watch.until_seq(4)
    assert watch.seqs == [1, 2, 3, 4]


async def test_partitions_that_commit_at_once_come_in_the_order_of_their_seqs(rig: Rig, doors: Doors) -> None:
    watch = Watch(doors)
    await watch.ask(add_topics=[MINE])
    await watch.read()

    async def work(partition: int) -> None:
        checkpoint = await rig.checkpoint(partition)
        for number in range(8):
            checkpoint = await rig.apply(checkpoint, h.whole_run(partition * 100 + number))

    await asyncio.gather(*(work(partition) for partition in range(6)))
    await watch.until_seq(48)
    assert watch.seqs == list(range(1, 49))


@pytest.mark.parametrize(
    ("limits", "frames"),
    [(TopicLimits(page_frames=2), 2), (TopicLimits(page_bytes=1), 1), (TopicLimits(), 5)],
    ids=["frames", "bytes", "defaults"],
)
async def test_a_page_is_bounded_unless_asked_otherwise(rig: Rig, doors: Doors, frames: int) -> None:
    await rig.fill()
    assert len((await replay(doors)).page.frames) == frames
    assert len((await replay(doors, max_frames=4, max_bytes=1 << 20)).page.frames) == 4


async def test_only_services_may_ask_for_topics(doors: Doors) -> None:
    request = topic_service_pb2.DescribeTopicRequest(topic=MINE)
    refusal = await refused(doors.topics.DescribeTopic(request))
    assert refusal.reason == "service_not_accepted"


# ------------------------------------------------------------------------------------------------- conformance


class TestTopics(TopicSourceSuite):
    of = USER_RUNS

    @pytest.fixture
    def source(self, rig: Rig, doors: Doors, projector_database: Database) -> Source:
        return ProjectorSource(rig, doors.topics, projector_database.projector, USER_RUNS)

    @pytest.mark.parametrize("topic", ["user:me:runs", "runs", f"user:{h.ORG}:runs"])
    async def test_a_name_that_is_none_is_refused(self, doors: Doors, topic: str) -> None:
        request = topic_service_pb2.DescribeTopicRequest(topic=topic)
        refusal = await refused(doors.topics.DescribeTopic(request, metadata=as_gateway()))
        assert (refusal.reason, refusal.field) == ("invalid_topic", "topic")

    async def test_a_chain_is_refused_for_there_is_none(self, source: Source) -> None:
        refusal = await refused(replay_of(source, source.topics[0], after_chain=b"c" * 32))
        assert (refusal.reason, refusal.field) == ("invalid_value", "after_chain")


class TestTopicsOfOrgs(TopicSourceSuite):
    of = ORG_RUNS

    @pytest.fixture
    def source(self, rig: Rig, doors: Doors, projector_database: Database) -> Source:
        return ProjectorSource(rig, doors.topics, projector_database.projector, ORG_RUNS)


# ------------------------------------------------------------------------------------------------- reads
