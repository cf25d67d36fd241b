"""TopicService for the topics of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from oa_errors import Refusal, check_rules
from oa_platform.refusals import note_refusal
from openagents.sync.v1 import topic_service_pb2
from openagents.sync.v1.topic_service_pb2_grpc import TopicServiceServicer
from services.runtime.app.topics import Page, TopicDescription, Topics, Watcher

_WATCH = "/openagents.sync.v1.TopicService/WatchTopics"
_ANSWER_BYTES = 1 << 20
"""Where a batch of live frames is cut into messages."""


class TopicApi(TopicServiceServicer):
    """Describes, watches and replays topics."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    async def DescribeTopic(
        self, request: topic_service_pb2.DescribeTopicRequest, context: Any
    ) -> topic_service_pb2.DescribeTopicResponse:
        """Where a topic stands."""
        described = await self._topics.describe(request.topic)
        return topic_service_pb2.DescribeTopicResponse(
            epoch=described.epoch,
            floor=described.floor,
            head=described.head,
            owner_user_id=described.owner_user_id,
            owner_org_id=described.owner_org_id,
        )

    async def ReplayTopic(
        self, request: topic_service_pb2.ReplayTopicRequest, context: Any
    ) -> topic_service_pb2.ReplayTopicResponse:
        """One page of history."""
        page, described = await self._topics.replay(
            request.topic,
            request.epoch,
            request.after_seq,
            request.max_frames,
            request.max_bytes,
            request.after_chain,
        )
        return topic_service_pb2.ReplayTopicResponse(
            page=_frames(page, described.epoch), floor=described.floor, head=described.head
        )

    async def WatchTopics(
        self, requests: AsyncIterator[topic_service_pb2.WatchTopicsRequest], context: Any
    ) -> AsyncIterator[topic_service_pb2.WatchTopicsResponse]:
        """Live frames of the topics that the caller names."""
        answers: asyncio.Queue[topic_service_pb2.WatchTopicsResponse | BaseException | None] = asyncio.Queue(maxsize=8)
        with self._topics.watcher() as watcher:
            tasks = [
                asyncio.create_task(_reported(self._follow_requests(requests, watcher, answers), answers)),
                asyncio.create_task(_reported(self._follow_frames(watcher, answers), answers)),
            ]
            try:
                while (answer := await answers.get()) is not None:
                    if isinstance(answer, BaseException):
                        raise answer
                    yield answer
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_requests(
        self,
        requests: AsyncIterator[topic_service_pb2.WatchTopicsRequest],
        watcher: Watcher,
        answers: asyncio.Queue[Any],
    ) -> None:
        async for request in requests:
            check_rules(request)
            answer = topic_service_pb2.WatchTopicsResponse()
            for topic in request.remove_topics:
                with suppress(Refusal):  # what was never carried needs no removing
                    watcher.remove(topic)
            for topic in request.add_topics:
                await self._add(watcher, topic, answer)
            if answer.watched or answer.refused:
                await answers.put(answer)
        await answers.put(None)

    async def _add(self, watcher: Watcher, topic: str, answer: topic_service_pb2.WatchTopicsResponse) -> None:
        try:
            answer.watched.append(_watched(await watcher.add(topic)))
        except Refusal as refusal:
            note_refusal(_WATCH, refusal)
            answer.refused.add(topic=topic, reason=refusal.reason, message=refusal.message)

    async def _follow_frames(self, watcher: Watcher, answers: asyncio.Queue[Any]) -> None:
        while True:
            pages, overrun = await watcher.take()
            epoch = self._topics.epoch  # of what was taken; there may be another one before all of it is handed on
            answer, size = topic_service_pb2.WatchTopicsResponse(), 0
            for page in pages:
                answer.batches.append(_frames(page, epoch))
                size += sum(map(len, page.frames))
                if size > _ANSWER_BYTES:
                    await answers.put(answer)
                    answer, size = topic_service_pb2.WatchTopicsResponse(), 0
            for topic in overrun:
                # Its frames were dropped: the head tells the caller what to replay.
                await self._add(watcher, topic, answer)
            if answer.batches or answer.watched or answer.refused:
                await answers.put(answer)


async def _reported(work: Any, answers: asyncio.Queue[Any]) -> None:
    """Run `work`; what it raises becomes the end of the stream."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - handed to whoever answers the call
        await answers.put(error)


def _watched(described: TopicDescription) -> topic_service_pb2.WatchedTopic:
    return topic_service_pb2.WatchedTopic(
        topic=described.topic,
        epoch=described.epoch,
        floor=described.floor,
        head=described.head,
        owner_user_id=described.owner_user_id,
        owner_org_id=described.owner_org_id,
    )


def _frames(page: Page, epoch: str) -> topic_service_pb2.TopicFrames:
    return topic_service_pb2.TopicFrames(topic=page.topic, epoch=epoch, first_seq=page.first_seq, frames=page.frames)
