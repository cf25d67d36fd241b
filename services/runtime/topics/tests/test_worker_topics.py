"""What becomes of workers, as a topic: from real streams, live on every replica, and within its bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest_asyncio

from oa_khala.topics import WORKER_LIFECYCLE
from oa_testing.postgres import Database
from oa_topics.store import TopicLimits
from oa_topics.tests.conformance import Source, TopicSourceSuite, describe, refused, replay, watching
from openagents.runtime.v1 import worker_pb2, worker_service_pb2
from openagents.sync.v1 import frame_pb2
from services.runtime.config import TopicSettings
from services.runtime.tests.rig import (
    AS_GATEWAY,
    QUICK_WORKERS,
    FakeWorker,
    Replica,
    Somebody,
    replica,
    runtime_settings,
)

KEPT = 1_000
"""As in `runtime.note_workers`."""


@dataclass
class Workers:
    """`oa_topics.tests.conformance.Source`: three workers of one replica."""

    stub: Any
    topics: tuple[str, str, str]
    admin: str
    metadata: Any = field(default_factory=lambda: AS_GATEWAY)
    foreign: str = "org:org_01JD0000000000000000000000:workers"
    commits: int = 0

    async def commit(self, topic: str, count: int, size: int = 0) -> None:
        """As many streams, one after the other."""
        admin = await asyncpg.connect(self.admin)
        async with admin.transaction():
            for _ in range(count):
                self.commits += 1
                await admin.execute(
                    "UPDATE runtime.workers SET attachment = $2, name = $3 WHERE worker_id = $1",
                    topic.split(":")[1],
                    f"att_{self.commits}",
                    "x" * size,
                )
        await admin.close()

    async def lose(self, topic: str, seq: int) -> None:
        admin = await asyncpg.connect(self.admin)
        await admin.execute(
            "DELETE FROM runtime.worker_events WHERE worker_id = $1 AND seq = $2", topic.split(":")[1], seq
        )
        await admin.close()


def topic_of(worker: FakeWorker) -> str:
    return f"worker:{worker.worker_id}:lifecycle"


async def attached(runtime: Replica, who: Somebody, worker_id: str = "") -> FakeWorker:
    worker = FakeWorker(runtime, who, worker_id)
    await worker.attach()
    return worker


class TestTopics(TopicSourceSuite):
    of = WORKER_LIFECYCLE

    @pytest_asyncio.fixture
    async def source(self, runtime_database: Database, who: Somebody, limits: TopicLimits) -> AsyncIterator[Source]:
        settings = TopicSettings(watched_topics=limits.watched_topics, pending_bytes=limits.pending_bytes)
        async with replica(runtime_settings(runtime_database, topics=settings), who.key) as runtime:
            first, second, third = [topic_of(await attached(runtime, who)) for _ in range(3)]
            yield Workers(runtime.topics, (first, second, third), runtime_database.admin)

    async def test_a_worker_that_does_not_exist_is_not_found(self, source: Source) -> None:
        absent = "worker:wrk_01JD0000000000000000000000:lifecycle"
        assert (await refused(describe(source, absent))).reason == "not_found"

    async def test_a_chain_is_refused_for_there_is_none(self, source: Source) -> None:
        refusal = await refused(replay(source, source.topics[0], after_chain=b"c" * 32))
        assert (refusal.reason, refusal.field) == ("invalid_value", "after_chain")

    async def test_the_newest_are_kept_and_the_floor_says_so(self, source: Source) -> None:
        topic, other, _ = source.topics
        await source.commit(topic, KEPT + 9)
        stands = await describe(source, topic)
        assert (stands.floor, stands.head) == (10, KEPT + 10)
        refusal = await refused(replay(source, topic, 9))
        assert (refusal.reason, refusal.metadata["floor"]) == ("retention_floor_breach", "10")
        page = await replay(source, topic, 10, max_frames=5_000)
        assert len(page.page.frames) == KEPT
        assert (await describe(source, other)).floor == 0


async def events(runtime: Replica, topic: str) -> list[worker_pb2.WorkerEvent]:
    """All that the topic has."""
    page = (await replay(Workers(runtime.topics, ("", "", ""), ""), topic)).page
    payloads = [frame_pb2.KhalaFrame.FromString(frame).payload_bytes for frame in page.frames]
    return [worker_pb2.WorkerEvent.FromString(payload) for payload in payloads]


def statuses(told: list[worker_pb2.WorkerEvent]) -> list[str]:
    return [worker_pb2.WorkerStatus.Name(one.status).removeprefix("WORKER_STATUS_").lower() for one in told]


async def test_a_worker_attaches_works_drains_leaves_and_comes_back(runtime_database: Database, who: Somebody) -> None:
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        source = Workers(runtime.topics, ("", "", ""), "")
        worker = await attached(runtime, who)
        topic = topic_of(worker)
        async with watching(source, topic) as watch:
            assert watch.watched[topic].owner_org_id == who.org_id
            await worker.heartbeat()
            await watch.until(topic, 2)
            await worker.write(worker_service_pb2.AttachRequest(drain=worker_service_pb2.WorkerDrain()))
            await watch.until(topic, 3)
            await worker.write(worker_service_pb2.AttachRequest(goodbye=worker_service_pb2.WorkerGoodbye()))
            await watch.until(topic, 4)
            await attached(runtime, who, worker.worker_id)
            await watch.until(topic, 5)
        told = await events(runtime, topic)
    assert statuses(told) == ["starting", "running", "draining", "stopped", "starting"]
    assert [(one.worker_id, one.seq) for one in told] == [(worker.worker_id, seq) for seq in range(1, 6)]
    assert {(one.name, tuple(one.adapters), one.max_concurrent_runs) for one in told} == {("fake", ("exec",), 4)}
    times = [one.recorded_time.ToNanoseconds() for one in told]
    assert times == sorted(times)
    assert times[0] > 0


async def test_a_lost_worker_is_told_of_live_by_the_other_replica(runtime_database: Database, who: Somebody) -> None:
    settings = runtime_settings(runtime_database, workers=QUICK_WORKERS)
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        topic = topic_of(await attached(one, who))
        async with watching(Workers(two.topics, ("", "", ""), ""), topic) as watch:
            assert watch.watched[topic].head == 1
            await watch.until(topic, 2)
        assert statuses(await events(two, topic)) == ["starting", "lost"]


async def test_many_changes_at_once_leave_no_hole(runtime_database: Database, who: Somebody) -> None:
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        topics = [topic_of(await attached(runtime, who)) for _ in range(3)]
        source = Workers(runtime.topics, (topics[0], topics[1], topics[2]), runtime_database.admin)
        await asyncio.gather(*(source.commit(topic, 3) for topic in topics * 4))
        for topic in topics:
            assert [one.seq for one in await events(runtime, topic)] == list(range(1, 14))
