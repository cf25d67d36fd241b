"""TopicService on gRPC, for every source. The callers are gateways. They decide who may read a topic, from the owner
that the service states."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from google.protobuf.message import Message

from oa_base.refusal import Refusal
from oa_topics.delivery_checks import DeliveryChecks
from oa_topics.hub import TopicHub
from oa_topics.store import TopicDescription
from oa_topics.watcher import Answer, Frames, Watcher
from oa_topics.wire import frames_to_wire
from oa_wire.rules import check_rules
from openagents.sync.v1 import topic_service_pb2 as pb
from openagents.sync.v1.topic_service_pb2_grpc import TopicServiceServicer

WATCH = "/openagents.sync.v1.TopicService/WatchTopics"
ANSWER_BYTES = 1 << 20
"""Size at which an answer is split into messages."""


class TopicApi(TopicServiceServicer):
    """Describes, watches and replays the topics of one source."""

    def __init__(self, hub: TopicHub, checks: DeliveryChecks, note_refusal: Callable[[str, Refusal], None]) -> None:
        """`note_refusal(method, refusal)` is called for each refusal within a stream that continues."""
        self._hub = hub
        self._checks = checks
        self._note_refusal = note_refusal

    async def DescribeTopic(self, request: pb.DescribeTopicRequest, context: Any) -> pb.DescribeTopicResponse:
        """Where a topic stands, and who owns it."""
        described = await self._hub.history.describe(request.topic)
        return pb.DescribeTopicResponse(
            epoch=described.state.epoch,
            floor=described.state.floor,
            head=described.state.head,
            owner_user_id=described.owner_user_id,
            owner_org_id=described.owner_org_id,
            snapshot_available=described.state.snapshot_available,
            snapshot_on_request=described.state.snapshot_on_request,
        )

    async def ReplayTopic(self, request: pb.ReplayTopicRequest, context: Any) -> pb.ReplayTopicResponse:
        """One page of history."""
        page = await self._hub.history.replay(
            request.topic,
            request.epoch,
            request.after_seq,
            request.max_frames,
            request.max_bytes,
            request.after_chain,
        )
        state = page.described.state
        frames = pb.TopicFrames(topic=request.topic, epoch=state.epoch, first_seq=page.first_seq, frames=page.frames)
        return pb.ReplayTopicResponse(page=frames, floor=state.floor, head=state.head)

    async def ReadSnapshot(self, request: pb.ReadSnapshotRequest, context: Any) -> pb.ReadSnapshotResponse:
        """A topic's state."""
        found = await self._hub.history.snapshot(request.topic, request.max_bytes)
        state = found.state
        return pb.ReadSnapshotResponse(epoch=found.epoch, seq=state.seq, payload=state.payload, chain=state.chain)

    async def WatchTopics(
        self, requests: AsyncIterator[pb.WatchTopicsRequest], context: Any
    ) -> AsyncIterator[pb.WatchTopicsResponse]:
        """Live frames of the topics that the caller names, until it ends the stream."""
        news = asyncio.Event()
        with self._hub.watcher(news.set) as watcher:
            reading = asyncio.create_task(self._read(requests, watcher))
            reading.add_done_callback(lambda _: news.set())
            try:
                while True:
                    await news.wait()
                    news.clear()
                    if reading.done():
                        reading.result()
                    await self._hub.describe(watcher)
                    for message in self._messages(watcher.take()):
                        yield message
                    if reading.done() and not news.is_set():
                        return
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                self._checks.remove(watcher)

    async def _read(self, requests: AsyncIterator[pb.WatchTopicsRequest], watcher: Watcher) -> None:
        async for request in requests:
            check_rules(request)
            if request.delivery_checks:
                self._checks.add(watcher)
            if request.frame_route:
                watcher.take_by_subject(request.frame_route == pb.FRAME_ROUTE_SUBJECT)
            self._hub.remove(watcher, request.remove_topics)
            self._hub.add(watcher, request.add_topics)

    def _messages(self, answer: Answer) -> Iterator[pb.WatchTopicsResponse]:
        """An answer as messages of about `ANSWER_BYTES`; where topics stand comes first."""
        for _, refusal in answer.refused:
            self._note_refusal(WATCH, refusal)
        message, size = pb.WatchTopicsResponse(), 0
        if answer.delivery_check:
            message.delivery_check, message.subject = answer.delivery_check, self._hub.subject
        for field, part in _parts(answer):
            part_bytes = part.ByteSize()
            if size and size + part_bytes > ANSWER_BYTES:
                yield message
                message, size = pb.WatchTopicsResponse(), 0
            getattr(message, field).append(part)
            size += part_bytes
        if size or message.delivery_check:
            yield message


def _parts(answer: Answer) -> Iterator[tuple[str, Message]]:
    """The parts of an answer, each with the field that it belongs to."""
    for described in answer.watched:
        yield "watched", _watched(described)
    for topic, refusal in answer.refused:
        yield "refused", pb.RefusedTopic(topic=topic, reason=refusal.reason, message=refusal.message)
    for batch in answer.batches:
        for piece in _pieces(batch):
            yield "batches", frames_to_wire(piece)


def _pieces(batch: Frames) -> Iterator[Frames]:
    """Frames that follow on each other, in pieces of at most `ANSWER_BYTES`, or of one frame."""
    start = size = 0
    for place, frame in enumerate(batch.frames):
        if size and size + len(frame) > ANSWER_BYTES:
            yield batch._replace(first_seq=batch.first_seq + start, frames=batch.frames[start:place])
            batch, start, size = batch._replace(origin=None), place, 0
        size += len(frame)
    yield batch._replace(first_seq=batch.first_seq + start, frames=batch.frames[start:]) if start else batch


def _watched(described: TopicDescription) -> pb.WatchedTopic:
    return pb.WatchedTopic(
        topic=str(described.topic),
        epoch=described.state.epoch,
        floor=described.state.floor,
        head=described.state.head,
        owner_user_id=described.owner_user_id,
        owner_org_id=described.owner_org_id,
        snapshot_available=described.state.snapshot_available,
        snapshot_on_request=described.state.snapshot_on_request,
    )
