"""openagents.sync.v1.TopicService, for the summary topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from oa_errors import Refusal, check_rules
from oa_khala.topics import Topic
from oa_khala.wire import event_frame
from oa_platform.refusals import note_refusal
from openagents.sync.v1 import topic_service_pb2 as pb
from openagents.sync.v1 import topic_service_pb2_grpc
from services.projector.app.hub import TopicHub, Watcher, WatcherOverrun, runs_of
from services.projector.app.ports import JournalRow
from services.projector.app.topics import TopicDescription, Topics, describe, served_topic

_WATCH = "/openagents.sync.v1.TopicService/WatchTopics"


class TopicService(topic_service_pb2_grpc.TopicServiceServicer):
    """Callers are gateways: who may read a topic is theirs to decide, from the owner that Describe states."""

    def __init__(self, topics: Topics, hub: TopicHub) -> None:
        self._topics = topics
        self._hub = hub

    async def DescribeTopic(self, request: pb.DescribeTopicRequest, context: Any) -> pb.DescribeTopicResponse:
        """Where a topic stands and whom it belongs to."""
        found = await self._topics.describe(request.topic)
        return pb.DescribeTopicResponse(
            epoch=found.epoch,
            floor=found.position.floor,
            head=found.position.head,
            owner_user_id=found.owner_user_id,
            owner_org_id=found.owner_org_id,
        )

    async def ReplayTopic(self, request: pb.ReplayTopicRequest, context: Any) -> pb.ReplayTopicResponse:
        """A page of a topic's history."""
        if request.after_chain:
            raise Refusal("invalid_value", "these topics have no chain; leave it empty", field="after_chain")
        page = await self._topics.replay(
            request.topic, request.epoch, request.after_seq, request.max_frames, request.max_bytes
        )
        frames = topic_frames(page.topic, page.epoch, page.rows)
        return pb.ReplayTopicResponse(page=frames, floor=page.position.floor, head=page.position.head)

    async def WatchTopics(
        self, requests: AsyncIterator[pb.WatchTopicsRequest], context: Any
    ) -> AsyncIterator[pb.WatchTopicsResponse]:
        """Live frames of the topics that the caller names, until it ends the stream."""
        epoch = await self._topics.epoch()
        with self._hub.watcher() as watcher:
            stream = _WatchStream(self._hub, watcher, epoch)
            async for answer in stream.run(requests):
                yield answer


class _WatchStream:
    """One Watch stream: what the caller asks for and what is committed meet in one queue of answers."""

    def __init__(self, hub: TopicHub, watcher: Watcher, epoch: str) -> None:
        self._hub = hub
        self._watcher = watcher
        self._epoch = epoch
        self._answers: asyncio.Queue[pb.WatchTopicsResponse | None] = asyncio.Queue(1)
        # Held while topics are added, so that a topic's WatchedTopic goes out before its frames do.
        self._adding = asyncio.Lock()

    async def run(self, requests: AsyncIterator[pb.WatchTopicsRequest]) -> AsyncIterator[pb.WatchTopicsResponse]:
        """The answers, until the caller ends its half. Raises what ended the stream otherwise."""
        tasks = [asyncio.create_task(self._read(requests)), asyncio.create_task(self._push())]
        try:
            while (answer := await self._next_answer(tasks)) is not None:
                yield answer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next_answer(self, tasks: Sequence[asyncio.Task[None]]) -> pb.WatchTopicsResponse | None:
        getter = asyncio.ensure_future(self._answers.get())
        try:
            await asyncio.wait({getter, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            return await getter
        finally:
            getter.cancel()

    async def _read(self, requests: AsyncIterator[pb.WatchTopicsRequest]) -> None:
        async for request in requests:
            check_rules(request)
            self._hub.remove(self._watcher, list(request.remove_topics))
            if request.add_topics:
                async with self._adding:
                    await self._answers.put(await self._add(request.add_topics))
        await self._answers.put(None)

    async def _push(self) -> None:
        while True:
            try:
                rows = await self._watcher.take()
            except WatcherOverrun:
                raise Refusal("overloaded", "The stream was not read fast enough: watch again.") from None
            batches = [topic_frames(run[0].topic, self._epoch, run) for run in runs_of(rows)]
            async with self._adding:
                await self._answers.put(pb.WatchTopicsResponse(batches=batches))

    async def _add(self, texts: Sequence[str]) -> pb.WatchTopicsResponse:
        answer = pb.WatchTopicsResponse()
        topics: dict[str, Topic] = {}
        for text in texts:
            try:
                topics[text] = served_topic(text)
            except Refusal as refusal:
                note_refusal(_WATCH, refusal)
                answer.refused.add(topic=text, reason=refusal.reason, message=refusal.message)
        positions = await self._hub.add(self._watcher, list(topics))
        for text, topic in topics.items():
            answer.watched.append(watched_topic(describe(topic, self._epoch, positions[text])))
        return answer


def topic_frames(topic: str, epoch: str, rows: Sequence[JournalRow]) -> pb.TopicFrames:
    """Consecutive rows of one topic as frames that are ready to be sent; `first_seq` is 0 when there are none."""
    frames = [event_frame(topic, row.seq, row.payload) for row in rows]
    return pb.TopicFrames(topic=topic, epoch=epoch, first_seq=rows[0].seq if rows else 0, frames=frames)


def watched_topic(found: TopicDescription) -> pb.WatchedTopic:
    """The message for a topic that is watched from now on."""
    return pb.WatchedTopic(
        topic=found.topic,
        epoch=found.epoch,
        floor=found.position.floor,
        head=found.position.head,
        owner_user_id=found.owner_user_id,
        owner_org_id=found.owner_org_id,
    )
