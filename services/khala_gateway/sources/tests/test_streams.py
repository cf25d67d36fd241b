"""The requests of a stream, beside what gRPC keeps of one that broke."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from oa_base.refusal import Refusal
from oa_testing.waiting import eventually
from openagents.sync.v1 import topic_service_pb2 as pb
from services.khala_gateway.sources.app.ports import WatchedTopic
from services.khala_gateway.sources.door import GrpcTopicSource

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"


class Call:
    """A Watch call that says nothing; its requests are read on after it has ended, as gRPC does."""

    def __init__(self, requests: AsyncIterator[pb.WatchTopicsRequest]) -> None:
        self.asked: list[str] = []
        self.ended = asyncio.Event()
        self.reading = asyncio.create_task(self._read(requests))

    async def _read(self, requests: AsyncIterator[pb.WatchTopicsRequest]) -> None:
        async for request in requests:
            self.asked += request.add_topics

    async def __aiter__(self) -> AsyncIterator[pb.WatchTopicsResponse]:
        await self.ended.wait()
        nothing: list[pb.WatchTopicsResponse] = []
        for message in nothing:
            yield message


class Channel:
    """As much of a channel as a source needs for its streams."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def channel_ready(self) -> None:
        """It always is."""

    def unary_unary(self, path: str, **_: Any) -> object:
        """Nothing is called here but the stream."""
        return None

    def stream_stream(self, path: str, **_: Any) -> Callable[[AsyncIterator[pb.WatchTopicsRequest]], Call]:
        """The method that is left."""

        def call(requests: AsyncIterator[pb.WatchTopicsRequest]) -> Call:
            self.calls.append(Call(requests))
            return self.calls[-1]

        return call


class Unheard:
    """`SourceEvents` that nobody listens to."""

    def watched(self, watched: WatchedTopic) -> None:
        """See SourceEvents."""

    def refused(self, topic: str, refusal: Refusal) -> None:
        """See SourceEvents."""

    def frames(self, topic: str, epoch: str, first_seq: int, frames: Any, origin: Any = None) -> None:
        """See SourceEvents."""


async def test_a_stream_that_broke_takes_nothing_of_what_the_next_one_has_to_ask_for() -> None:
    channel, events = Channel(), Unheard()
    source = GrpcTopicSource("runtime", channel, lambda: events, lambda: 0.0)  # type: ignore[arg-type]
    running = asyncio.create_task(source.run())
    await eventually(lambda: len(channel.calls) == 1)
    channel.calls[0].ended.set()
    await eventually(lambda: len(channel.calls) == 2)
    source.add([T])
    broken, stands = channel.calls
    await eventually(lambda: bool(broken.asked or stands.asked))
    assert (broken.asked, stands.asked) == ([], [T])
    for task in (running, broken.reading, stands.reading):
        task.cancel()
    await asyncio.gather(running, broken.reading, stands.reading, return_exceptions=True)
