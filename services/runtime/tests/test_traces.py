"""What live frames say of where they come from: when they were recorded, and the span of their commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from oa_platform.tests.traces import collected, span
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from oa_topics.wire import origin_from_wire
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import event_pb2, log_service_pb2
from openagents.sync.v1 import frame_pb2, topic_service_pb2
from services.runtime.log.app.traces import COMMIT, COMMITTED, FOLLOW, PUBLISHED
from services.runtime.tests.rig import (
    AS_GATEWAY,
    AS_PROJECTOR,
    FakeWorker,
    Replica,
    replica,
    runtime_settings,
    somebody,
    text,
)


async def test_live_frames_say_when_they_were_recorded_and_those_of_a_traced_commit_its_span(
    runtime_database: Database,
) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime, asyncio.timeout(PATIENCE_S):
        run = await runtime.create(who, "k", "git", "log")
        worker = FakeWorker(runtime, who)
        await worker.attach()
        await worker.next("assignment")
        stream = await _watched(runtime, run.events_topic)
        await worker.append(run.run_id, 1, "a1", text(b"untraced"))
        untraced = await _batch(stream)
        assert untraced.traceparent == ""
        with collected() as spans:
            await worker.append(run.run_id, 1, "a2", text(b"1"), text(b"2"))
            traced = await _batch(stream)
            commits = [one for one in spans.get_finished_spans() if one.name == COMMIT]
        for batch in (untraced, traced):
            event = event_pb2.RunEvent.FromString(frame_pb2.KhalaFrame.FromString(batch.frames[0]).payload_bytes)
            origin = origin_from_wire(batch)
            assert origin is not None
            assert origin.recorded_ns == event.recorded_time.ToNanoseconds()
        (commit,) = (one for one in commits if f"{one.context.span_id:016x}" in traced.traceparent)
        assert f"{commit.context.trace_id:032x}" in traced.traceparent
        assert [event.name for event in commit.events] == [COMMITTED, PUBLISHED]
        assert commit.parent is None
        stream.cancel()


async def test_frames_of_what_another_replica_committed_have_the_trace_of_its_commit(
    runtime_database: Database,
) -> None:
    who = somebody()
    async with (
        replica(runtime_settings(runtime_database), who.key) as runtime,
        replica(runtime_settings(runtime_database), who.key) as other,
        asyncio.timeout(PATIENCE_S),
    ):
        run = await runtime.create(who, "k", "git", "log")
        worker = FakeWorker(runtime, who)
        await worker.attach()
        await worker.next("assignment")
        stream = await _watched(other, run.events_topic)
        with collected() as spans:
            for number in count():  # the other replica may have found it by itself, before it was told of it
                await worker.append(run.run_id, 1, f"a{number}", text(b"1"))
                if (batch := await _batch(stream)).traceparent:
                    break
            ended = spans.get_finished_spans()
        spans_of = {f"{one.context.trace_id:032x}-{one.context.span_id:016x}": one for one in ended}
        follow = spans_of[batch.traceparent[3:-3]]
        assert follow.parent is not None
        commit = spans_of[f"{follow.parent.trace_id:032x}-{follow.parent.span_id:016x}"]
        assert (follow.name, commit.name) == (FOLLOW, COMMIT)
        stream.cancel()


async def test_readers_of_the_log_are_told_of_the_traced_commit_that_they_read(
    runtime_database: Database,
) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime, asyncio.timeout(PATIENCE_S):
        await runtime.create(who, "k1", "git", "log")
        with collected() as spans:
            traced = await runtime.create(who, "k2", "git", "log")
            commits = {one.context.span_id for one in spans.get_finished_spans() if one.name == COMMIT}
        await runtime.create(who, "k3", "git", "log")
        heads = (await runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)).heads
        after = [cursor_pb2.LogPosition(partition=head.partition) for head in heads]
        told: dict[str, str] = {}
        async for message in runtime.log.TailLog(log_service_pb2.TailLogRequest(after=after), metadata=AS_PROJECTOR):
            runs = [event_pb2.RunEvent.FromString(data).run_id for data in message.events]
            told |= dict.fromkeys(runs, message.traceparent)
            if len(told) == 3:
                break
        assert int(told[traced.run_id].split("-")[2], 16) in commits
        others = [traceparent for traceparent in told.values() if traceparent != told[traced.run_id]]
        assert not any(others), "what has no traced commit says nothing"


async def test_a_call_is_linked_to_the_commit_of_what_it_asked_for(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime, asyncio.timeout(PATIENCE_S):
        with collected() as spans:
            with span("caller"):
                await runtime.create(who, "k", "git", "log")
            ended = spans.get_finished_spans()
        (call,) = (one for one in ended if one.name.endswith("/CreateRun"))
        assert any(call.context == link.context for one in ended if one.name == COMMIT for link in one.links)


async def _watched(runtime: Replica, topic: str) -> Any:
    """A stream of a replica that carries the topic."""

    async def topics() -> AsyncIterator[topic_service_pb2.WatchTopicsRequest]:
        yield topic_service_pb2.WatchTopicsRequest(add_topics=[topic])
        await asyncio.Event().wait()

    stream: Any = runtime.topics.WatchTopics(topics(), metadata=AS_GATEWAY)
    assert len((await stream.read()).watched) == 1
    return stream


async def _batch(stream: Any) -> topic_service_pb2.TopicFrames:
    """The next live frames."""
    while not (message := await stream.read()).batches:
        pass
    batch: topic_service_pb2.TopicFrames = message.batches[0]
    return batch
