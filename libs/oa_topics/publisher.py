"""Publishes frames once for all gateways that take them there, in addition to the streams.

Whatever carries them may lose, repeat, reorder and delay them: streams say a moment later where the topics stand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from oa_topics.watcher import Frames, Origin
from oa_topics.wire import frames_to_wire
from openagents.sync.v1 import topic_service_pb2 as pb

CHECK = "check"
"""Under a source's subject: where its delivery checks are published. No topic has that name."""


class Transport(Protocol):
    """Publishes on subjects. Delivery is not confirmed."""

    @property
    def max_bytes(self) -> int:
        """Maximum size of one message, in bytes; 0 while nothing can be published."""
        ...

    async def publish(self, subject: str, data: bytes) -> None:
        """Publish a message. It is lost while nothing can be published. Waits while the connection is full."""
        ...


class FramePublisher:
    """See the module. Call `run` in the background. `published` gets the number of frames each time."""

    def __init__(
        self, transport: Transport, subject: str, pending_bytes: int, published: Callable[[int], None]
    ) -> None:
        """`pending_bytes`: maximum bytes that wait for the transport."""
        self.subject = subject
        self._transport = transport
        self._limit_bytes = pending_bytes
        self._published = published
        self._pending: deque[tuple[str, bytes]] = deque()
        self._pending_bytes = 0
        self._news = asyncio.Event()

    def publish(
        self, topic: str, epoch: str, first_seq: int, frames: Sequence[bytes], origin: Origin | None = None
    ) -> bool:
        """Publish consecutive frames. Returns False if that is impossible; they then go another way. Never waits."""
        batch = frames_to_wire(Frames(topic, epoch, first_seq, list(frames), origin))
        if not self._put(topic, pb.WatchTopicsResponse(batches=[batch])):
            return False
        self._published(len(frames))
        return True

    def check(self, number: int) -> None:
        """Publish a delivery check."""
        self._put(CHECK, pb.WatchTopicsResponse(delivery_check=number))

    async def run(self) -> None:
        """Pass waiting messages to the transport until canceled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._pending:
                subject, data = self._pending.popleft()
                await self._transport.publish(subject, data)
                self._pending_bytes -= len(data)

    def _put(self, name: str, message: pb.WatchTopicsResponse) -> bool:
        data = message.SerializeToString()
        if len(data) > self._transport.max_bytes or (
            self._pending and self._pending_bytes + len(data) > self._limit_bytes
        ):
            return False
        self._pending.append((f"{self.subject}.{name}", data))
        self._pending_bytes += len(data)
        self._news.set()
        return True
