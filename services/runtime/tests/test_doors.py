"""What services are served: the log and its topics, live and from the past, on one replica and across two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_khala.topics import RUN_EVENTS
from oa_runlog import wire
from oa_runlog.proof.chain import chain_over
from oa_testing.postgres import Database
from oa_topics.store import TopicLimits
from oa_topics.tests.conformance import Source, TopicSourceSuite
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import log_service_pb2, receipt_service_pb2, run_service_pb2
from openagents.sync.v1 import frame_pb2, topic_service_pb2
from services.runtime.config import TopicSettings
from services.runtime.tests.rig import (
    AS_GATEWAY,
    AS_PROJECTOR,
    FakeWorker,
    Replica,
    Somebody,
    refusal_of_call,
    refusing,
    replica,
    runtime_settings,
    text,
)

PARTITIONS = range(16)
GONE = "run:run_01JD0000000000000000000000:events"


@pytest_asyncio.fixture
async def worker(runtime: Replica, who: Somebody) -> FakeWorker:
    worker = FakeWorker(runtime, who)
    await worker.attach()
    return worker


async def started(runtime: Replica, who: Somebody, worker: FakeWorker, key: str = "k") -> Any:
    run = await runtime.create(who, key)
    await worker.next("assignment")
    return run


# ------------------------------------------------------------------------------------------------- the log


def after(**positions: int) -> list[cursor_pb2.LogPosition]:
    return [cursor_pb2.LogPosition(partition=p, position=positions.get(f"p{p}", 0)) for p in PARTITIONS]


async def follow(runtime: Replica, count: int) -> list[tuple[int, int, bytes]]:
    """The first `count` entries of the tail from 0; asserts that each follows on the one before."""
    heads = dict.fromkeys(PARTITIONS, 0)
    seen: list[tuple[int, int, bytes]] = []
    async with asyncio.timeout(60):
        async for batch in runtime.log.TailLog(log_service_pb2.TailLogRequest(after=after()), metadata=AS_PROJECTOR):
            assert batch.first_position == heads[batch.partition] + 1
            for data in batch.events:
                heads[batch.partition] += 1
                seen.append((batch.partition, heads[batch.partition], data))
            if len(seen) >= count:
                break
    return seen


async def test_the_tail_is_the_log_on_every_replica_while_both_write(runtime_database: Database, who: Somebody) -> None:
    settings = runtime_settings(runtime_database)
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        total = 2 * 15 * 3  # each run is created and canceled at once: three events
        readers = [asyncio.create_task(follow(runtime, total)) for runtime in (one, two, one)]

        async def write(runtime: Replica, name: str) -> None:
            for number in range(15):
                run = await runtime.create(who, f"{name}-{number}")
                request = run_service_pb2.CancelRunRequest(run_id=run.run_id)
                await runtime.runs.CancelRun(request, metadata=who.as_person())

        await asyncio.gather(write(one, "one"), write(two, "two"))
        seen = await asyncio.gather(*readers)
        late = await follow(two, total)
    assert len(set(late)) == total
    for entries in seen:
        assert sorted(entries) == sorted(late)
        events = [wire.decode_event(data) for _, _, data in entries]
        for run_id in {event.run_id for event in events}:
            seqs = [event.seq for event in events if event.run_id == run_id]
            assert seqs == list(range(1, len(seqs) + 1))


async def test_a_tail_resumes_after_its_positions(runtime: Replica, who: Somebody) -> None:
    for number in range(8):
        await runtime.create(who, f"k{number}")
    everything = await follow(runtime, 8)
    described = await runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)
    heads = {head.partition: head.position for head in described.heads}
    assert sum(heads.values()) == 8
    partition, position, data = max(everything)
    place = cursor_pb2.LogPosition(partition=partition, position=position - 1)
    request = log_service_pb2.TailLogRequest(epoch=described.epoch, after=[place])
    async for batch in runtime.log.TailLog(request, metadata=AS_PROJECTOR):
        assert (batch.epoch, batch.partition, batch.first_position) == (described.epoch, partition, position)
        assert list(batch.events) == [data]
        break


@pytest.mark.parametrize(
    ("epoch", "places", "reason", "field"),
    [
        ("log_other", {"p1": 0}, "epoch_mismatch", "epoch"),
        ("", {"p1": 5}, "epoch_mismatch", "epoch"),
        (None, {"p1": 5}, "cursor_ahead_of_head", "after[1].position"),
        (None, {}, "invalid_value", "after[16].partition"),
        (None, None, "missing_field", "after"),
    ],
    ids=["other epoch", "no epoch", "ahead", "no such partition", "nothing"],
)
async def test_positions_that_are_not_of_this_log_are_refused(
    runtime: Replica, epoch: str | None, places: dict[str, int] | None, reason: str, field: str
) -> None:
    if epoch is None:
        epoch = (await runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)).epoch
    positions = [] if places is None else after(**places)
    if places == {}:
        positions.append(cursor_pb2.LogPosition(partition=16))
    call = runtime.log.TailLog(log_service_pb2.TailLogRequest(epoch=epoch, after=positions), metadata=AS_PROJECTOR)
    refusal = await refusal_of_call(call.read())
    assert (refusal.reason, refusal.metadata.get("field", refusal.field)) == (
        reason, field,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- topics


async def watch(runtime: Replica, *topics: str) -> tuple[Any, Any]:
    """A Watch stream, and its first answer."""
    call = runtime.topics.WatchTopics(metadata=AS_GATEWAY)
    await call.write(topic_service_pb2.WatchTopicsRequest(add_topics=topics))
    return call, await call.read()


def seqs_of(batch: Any) -> list[int]:
    frames = [frame_pb2.KhalaFrame.FromString(frame) for frame in batch.frames]
    assert [frame.seq for frame in frames] == list(range(batch.first_seq, batch.first_seq + len(frames)))
    assert all(frame.topic == batch.topic and frame.kind == frame_pb2.FRAME_KIND_EVENT for frame in frames)
    return [frame.seq for frame in frames]


async def live_seqs(call: Any, last: int) -> list[int]:
    """Seqs of live frames until one is `last`."""
    seqs: list[int] = []
    async with asyncio.timeout(60):
        while not seqs or seqs[-1] < last:
            for batch in (await call.read()).batches:
                seqs += seqs_of(batch)
    return seqs


async def test_live_frames_come_with_the_events_bytes(runtime: Replica, who: Somebody, worker: FakeWorker) -> None:
    run = await started(runtime, who, worker)
    call, first = await watch(runtime, run.events_topic, GONE, "nonsense")
    (watched,) = first.watched
    assert (watched.topic, watched.floor, watched.head) == (run.events_topic, 0, 2)
    assert (watched.owner_user_id, watched.owner_org_id) == (who.user_id, who.org_id)
    assert {(refused.topic, refused.reason) for refused in first.refused} == {
        (GONE, "not_found"), ("nonsense", "invalid_topic"),
    }  # fmt: skip
    await worker.append(run.run_id, 1, "a", text(b"one"), text(b"two"))
    (batch,) = (await call.read()).batches
    assert (batch.topic, batch.epoch, batch.first_seq, seqs_of(batch)) == (run.events_topic, watched.epoch, 3, [3, 4])
    replay = topic_service_pb2.ReplayTopicRequest(topic=run.events_topic, epoch=watched.epoch, after_seq=2)
    page = (await runtime.topics.ReplayTopic(replay, metadata=AS_GATEWAY)).page
    assert list(page.frames) == list(batch.frames), "live and replayed are the same bytes"
    call.cancel()


async def test_frames_of_another_replicas_commits_are_live_too(runtime_database: Database, who: Somebody) -> None:
    settings = runtime_settings(runtime_database)
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        worker = FakeWorker(one, who)
        await worker.attach()
        run = await started(one, who, worker)
        call, _ = await watch(two, run.events_topic)
        for number in range(20):
            await worker.append(run.run_id, 1, f"k{number}", text(b"x"))
        assert await live_seqs(call, 22) == list(range(3, 23))
        call.cancel()


async def test_a_cursor_that_can_not_be_served_is_refused_with_where_the_topic_stands(
    runtime: Replica, who: Somebody
) -> None:
    run = await runtime.create(who)
    topic = run.events_topic
    epoch = (await runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)).epoch
    cases = [
        (topic, "other", 0, "epoch_mismatch"),
        (topic, epoch, 2, "cursor_ahead_of_head"),
        (GONE, epoch, 0, "not_found"),
        ("run:x:events", epoch, 0, "invalid_topic"),
        (f"user:{who.user_id}:runs", epoch, 0, "invalid_topic"),
        ("worker:wrk_01JD0000000000000000000000:lifecycle", epoch, 0, "not_found"),
    ]
    for name, lineage, seq, reason in cases:
        request = topic_service_pb2.ReplayTopicRequest(topic=name, epoch=lineage, after_seq=seq)
        refusal = await refusal_of_call(runtime.topics.ReplayTopic(request, metadata=AS_GATEWAY))
        assert refusal.reason == reason
        if reason in ("epoch_mismatch", "cursor_ahead_of_head"):
            assert refusal.metadata.items() >= {"epoch": epoch, "floor": "0", "head": "1"}.items()


async def test_a_cursor_made_from_other_events_is_refused_with_both_chains(
    runtime: Replica, who: Somebody, worker: FakeWorker
) -> None:
    run = await started(runtime, who, worker)
    await worker.append(run.run_id, 1, "k", text(b"a"), text(b"b"), text(b"c"))
    bodies = [frame_payload(frame) for frame in (await page(runtime, run.events_topic)).page.frames]
    assert len(bodies) == 5
    for seq in range(6):
        chain = chain_over(run.run_id, bodies[:seq])
        answer = await page(runtime, run.events_topic, seq, chain)
        assert [frame_payload(frame) for frame in answer.page.frames] == bodies[seq:]
        other = chain_over(run.run_id, [*bodies[: seq - 1], b"another"] if seq else [b"another"])
        with pytest.raises(Refusal) as caught:
            await page(runtime, run.events_topic, seq, other)
        assert (caught.value.reason, caught.value.field) == ("epoch_mismatch", "after_chain")
        both = {"chain": chain.hex(), "after_chain": other.hex(), "head": "5"}
        assert caught.value.metadata.items() >= both.items()
    with pytest.raises(Refusal) as caught:
        await page(runtime, run.events_topic, 2, b"short")
    assert (caught.value.reason, caught.value.field) == ("invalid_value", "after_chain")


async def page(
    runtime: Replica, topic: str, after_seq: int = 0, after_chain: bytes = b""
) -> topic_service_pb2.ReplayTopicResponse:
    """A page of history, or its Refusal."""
    epoch = (await runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)).epoch
    request = topic_service_pb2.ReplayTopicRequest(
        topic=topic, epoch=epoch, after_seq=after_seq, after_chain=after_chain
    )
    answer: topic_service_pb2.ReplayTopicResponse = await refusing(
        runtime.topics.ReplayTopic(request, metadata=AS_GATEWAY)
    )
    return answer


def frame_payload(frame: bytes) -> bytes:
    """The stored event in a frame."""
    return frame_pb2.KhalaFrame.FromString(frame).payload_bytes


# ------------------------------------------------------------------------------------------------- conformance


@dataclass
class RuntimeSource:
    """`oa_topics.tests.conformance.Source`: three runs of one worker."""

    stub: Any
    worker: FakeWorker
    topics: tuple[str, str, str]
    admin: str
    metadata: Any = field(default_factory=lambda: AS_GATEWAY)
    foreign: str = "user:usr_01JD0000000000000000000000:runs"
    commits: int = 0

    async def commit(self, topic: str, count: int, size: int = 0) -> None:
        self.commits += 1
        bodies = [text(b"x" * size)] * count
        await self.worker.append(_run_of(topic), 1, f"c{self.commits}", *bodies)

    async def lose(self, topic: str, seq: int) -> None:
        admin = await asyncpg.connect(self.admin)
        await admin.execute("ALTER TABLE runtime.events DISABLE TRIGGER USER")
        await admin.execute("DELETE FROM runtime.events WHERE run_id = $1 AND seq = $2", _run_of(topic), seq)
        await admin.close()


def _run_of(topic: str) -> str:
    return topic.removeprefix("run:").removesuffix(":events")


class TestTopics(TopicSourceSuite):
    of = RUN_EVENTS

    @pytest_asyncio.fixture
    async def source(self, runtime_database: Database, who: Somebody, limits: TopicLimits) -> AsyncIterator[Source]:
        settings = TopicSettings(watched_topics=limits.watched_topics, pending_bytes=limits.pending_bytes)
        async with replica(runtime_settings(runtime_database, topics=settings), who.key) as runtime:
            worker = FakeWorker(runtime, who)
            await worker.attach()
            first, second, third = [(await started(runtime, who, worker, f"k{n}")).events_topic for n in range(3)]
            yield RuntimeSource(runtime.topics, worker, (first, second, third), runtime_database.admin)


# ------------------------------------------------------------------------------------------------- people


async def test_creating_again_gives_the_same_run(runtime_database: Database, who: Somebody) -> None:
    settings = runtime_settings(runtime_database)
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        first = await one.create(who, "k", "ls")
        again = await two.create(who, "k", "ls")
        assert again == first
        other = await refusal_of_call(one.create(who, "k", "rm"))
        assert other.reason == "idempotency_conflict"
        raced = await asyncio.gather(*(runtime.create(who, "raced") for runtime in (one, two) * 5))
        assert len({run.run_id for run in raced}) == 1


async def test_other_peoples_runs_do_not_exist(runtime: Replica, who: Somebody) -> None:
    run = await runtime.create(who)
    stranger = Somebody(who.key)
    calls: dict[str, Callable[[Any], Any]] = {
        "get": lambda m: runtime.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run.run_id), metadata=m),
        "cancel": lambda m: runtime.runs.CancelRun(run_service_pb2.CancelRunRequest(run_id=run.run_id), metadata=m),
        "receipt": lambda m: runtime.receipts.GetReceipt(
            receipt_service_pb2.GetReceiptRequest(run_id=run.run_id), metadata=m
        ),
    }
    for call in calls.values():
        assert (await refusal_of_call(call(stranger.as_person()))).reason == "not_found"
    colleague = replace(who, user_id=stranger.user_id)
    assert (await calls["get"](colleague.as_person())).run.run_id == run.run_id, "the org's members with the scope may"
    assert (await refusal_of_call(calls["get"](who.as_person("runs.write")))).reason == "missing_scope"
    assert (await refusal_of_call(calls["get"](AS_GATEWAY))).reason == "service_not_accepted"
    refusal = await refusal_of_call(calls["receipt"](who.as_person()))
    assert (refusal.reason, refusal.metadata["status"]) == ("run_not_finished", "created")
    assert (await runtime.run(who, run.run_id)).latest_seq == 1


async def test_services_only_are_served_the_log(runtime: Replica, who: Somebody) -> None:
    for metadata in (who.as_worker(), [], [("x-oa-service-token", "wrong")]):
        call = runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=metadata)
        assert (await refusal_of_call(call)).reason == "service_not_accepted"


async def test_each_service_is_served_what_it_may_call(runtime: Replica, who: Somebody) -> None:
    describe_log = runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_GATEWAY)
    refusal = await refusal_of_call(describe_log)
    assert (refusal.reason, refusal.metadata["callers"]) == ("caller_not_allowed", "projector")
    request = topic_service_pb2.DescribeTopicRequest(topic="run:run_00000000000000000000000000:events")
    refusal = await refusal_of_call(runtime.topics.DescribeTopic(request, metadata=AS_PROJECTOR))
    assert (refusal.reason, refusal.metadata["callers"]) == ("caller_not_allowed", "khala_gateway")
