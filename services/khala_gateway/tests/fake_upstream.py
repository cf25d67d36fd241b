"""A TopicService on loopback whose live delivery loses, repeats and reorders, and which can be killed and come back."""

import asyncio
import hashlib
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import grpc.aio

from oa_base.refusal import Refusal
from oa_khala.wire import event_frame
from oa_testing.postgres import free_port
from oa_topics.watcher import Frames, Origin
from oa_topics.wire import frames_to_wire
from oa_wire.status import STATUS_METADATA_KEY, to_status
from openagents.sync.v1 import topic_service_pb2 as pb
from openagents.sync.v1 import topic_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Log:
    """One topic at its authority. `frames[i]` has seq i + 1; those up to `floor` are pruned."""

    owner_user_id: str
    owner_org_id: str = ""
    epoch: str = "e1"
    floor: int = 0
    frames: list[bytes] = field(default_factory=list)
    damaged_at: int = 0
    has_snapshot: bool = False
    # For those only who take snapshots.
    has_snapshot_on_request: bool = False
    snapshot_size: int = 0
    document: bytes = b""

    @property
    def head(self) -> int:
        return len(self.frames)

    def snapshot(self) -> bytes:
        """Its state now: `document`, or about `snapshot_size` bytes, which differ from place to place."""
        if self.document:
            return self.document
        text = b"as of %d" % self.head
        return text + b"".join(b" %06d" % place for place in range((self.snapshot_size - len(text)) // 7))

    def chain(self, seq: int) -> bytes:
        """A value that stands for the first `seq` frames; what it is made of is for source and client to know."""
        return hashlib.sha256(b"".join(self.frames[:seq])).digest()


@dataclass
class Faults:
    """Chances, for each live frame, that it is lost, comes twice, or comes late."""

    lose: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(1))


class FakeUpstream(topic_service_pb2_grpc.TopicServiceServicer):
    """See the module. What the authority has is in `logs`; `append` adds to it and tells the watchers."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.logs: dict[str, Log] = {}
        self.replays: list[pb.ReplayTopicRequest] = []
        self.snapshots = 0
        self.replay_gate = asyncio.Event()
        self.replay_gate.set()
        # So many reads of history get no answer.
        self.stuck_replays = 0
        self.asked = 0
        self.ask_gate = asyncio.Event()
        self.ask_gate.set()
        self.port = 0
        self.page_frames = 1_000
        self.refuses_watchers = False
        self._server: grpc.aio.Server | None = None
        self.watchers: list[_Watcher] = []
        self.checks = 0
        # What live frames say of where they come from.
        self.origin: Origin | None = None

    async def start(self) -> None:
        """Listen: on any port the first time, on the same one later.

        One that systems don't give to outgoing connections, so that it is still there after `stop`.
        """
        self.port = self.port or free_port()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        topic_service_pb2_grpc.add_TopicServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Be gone at once."""
        assert self._server is not None
        await self._server.stop(0)
        self.watchers.clear()

    def create(self, topic: str, owner_user_id: str, count: int = 0) -> Log:
        """A topic with `count` events."""
        log = self.logs[topic] = Log(owner_user_id)
        self._extend(topic, count)
        return log

    def append(self, topic: str, count: int = 1, size: int = 0, payload: bytes = b"") -> None:
        """Commit events and offer them to whoever watches, as well as the faults allow."""
        first = self.logs[topic].head + 1
        self._extend(topic, count, size, payload)
        for watcher in self.watchers:
            watcher.offer(topic, first)

    def check_delivery(self, number: int = 0) -> None:
        """Send a delivery check to those who asked for them: the next one, or `number`."""
        self.checks = number or self.checks + 1
        for watcher in self.watchers:
            if watcher.wants_checks:
                watcher.queue.put_nowait(pb.WatchTopicsResponse(delivery_check=self.checks))

    def restore(self, topic: str, epoch: str, count: int) -> None:
        """The log is replaced by one of another lineage."""
        log = self.logs[topic]
        log.epoch, log.frames = epoch, []
        self._extend(topic, count)
        for watcher in self.watchers:
            watcher.offer(topic, count)

    def _extend(self, topic: str, count: int, size: int = 0, payload: bytes = b"") -> None:
        log = self.logs[topic]
        for _ in range(count):
            seq = log.head + 1
            made = payload or b"%s:%d" % (log.epoch.encode(), seq) + b"." * size
            log.frames.append(event_frame(topic, seq, made))

    async def WatchTopics(
        self, request_iterator: AsyncIterator[pb.WatchTopicsRequest], context: Context
    ) -> AsyncIterator[pb.WatchTopicsResponse]:
        if self.refuses_watchers:
            await _abort(context, Refusal("service_not_accepted", "who are you"))
        watcher = _Watcher(self)
        self.watchers.append(watcher)
        reader = asyncio.create_task(watcher.read(request_iterator))
        try:
            while True:
                yield await watcher.queue.get()
        finally:
            reader.cancel()
            if watcher in self.watchers:
                self.watchers.remove(watcher)

    async def DescribeTopic(self, request: pb.DescribeTopicRequest, context: Context) -> pb.DescribeTopicResponse:
        self.asked += 1
        await self.ask_gate.wait()
        await _abort(context, Refusal("not_found", "there is no such topic"))
        raise AssertionError

    async def ReadSnapshot(self, request: pb.ReadSnapshotRequest, context: Context) -> pb.ReadSnapshotResponse:
        self.snapshots += 1
        if self.stuck_replays:
            self.stuck_replays -= 1
            await asyncio.Event().wait()
        await self.replay_gate.wait()
        log = self.logs[request.topic]
        if not log.has_snapshot and not log.has_snapshot_on_request:
            await _abort(context, Refusal("not_found", "the topic has no snapshot"))
        payload = log.snapshot()[: request.max_bytes or 512 * 1024]
        chain = log.chain(log.head) if log.has_snapshot_on_request else b""
        return pb.ReadSnapshotResponse(epoch=log.epoch, seq=log.head, payload=payload, chain=chain)

    async def ReplayTopic(self, request: pb.ReplayTopicRequest, context: Context) -> pb.ReplayTopicResponse:
        self.replays.append(request)
        if self.stuck_replays:
            self.stuck_replays -= 1
            await asyncio.Event().wait()
        await self.replay_gate.wait()
        log = self.logs[request.topic]
        if request.epoch != log.epoch:
            await _abort(context, Refusal("epoch_mismatch", "another lineage"))
        stands = {"epoch": log.epoch, "floor": str(log.floor), "head": str(log.head)}
        if request.after_seq > log.head:
            await _abort(context, Refusal("cursor_ahead_of_head", "not there yet", metadata=stands))
        if request.after_seq < log.floor:
            await _abort(context, Refusal("retention_floor_breach", "pruned", metadata=stands))
        if log.damaged_at and request.after_seq + 1 >= log.damaged_at:
            await _abort(context, Refusal("archive_damaged", "an event is missing"))
        if request.after_chain and (chain := log.chain(request.after_seq)) != request.after_chain:
            await _abort(context, Refusal("epoch_mismatch", "other content", metadata={"chain": chain.hex()}))
        limit = min(request.max_frames or self.page_frames, self.page_frames)
        frames = _within(log.frames[request.after_seq : request.after_seq + limit], request.max_bytes)
        page = pb.TopicFrames(topic=request.topic, epoch=log.epoch, first_seq=request.after_seq + 1, frames=frames)
        return pb.ReplayTopicResponse(page=page, floor=log.floor, head=log.head)


def _within(frames: Sequence[bytes], max_bytes: int) -> list[bytes]:
    """The first of them that are so large together, but at least one; all for 0."""
    sizes = list(accumulate(map(len, frames)))
    return list(frames[: max(1, bisect_right(sizes, max_bytes))] if max_bytes else frames)


class _Watcher:
    """One Watch stream."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.topics: set[str] = set()
        self.wants_checks = False
        self.queue: asyncio.Queue[pb.WatchTopicsResponse] = asyncio.Queue()

    async def read(self, requests: AsyncIterator[pb.WatchTopicsRequest]) -> None:
        async for request in requests:
            self.wants_checks |= request.delivery_checks
            self.topics.difference_update(request.remove_topics)
            for topic in request.add_topics:
                self.queue.put_nowait(self._answer(topic))

    def _answer(self, topic: str) -> pb.WatchTopicsResponse:
        log = self.upstream.logs.get(topic)
        if log is None:
            refused = pb.RefusedTopic(topic=topic, reason="not_found", message="there is no such topic")
            return pb.WatchTopicsResponse(refused=[refused])
        self.topics.add(topic)
        watched = pb.WatchedTopic(
            topic=topic,
            epoch=log.epoch,
            floor=log.floor,
            head=log.head,
            owner_user_id=log.owner_user_id,
            owner_org_id=log.owner_org_id,
            snapshot_available=log.has_snapshot,
            snapshot_on_request=log.has_snapshot_on_request,
        )
        return pb.WatchTopicsResponse(watched=[watched])

    def offer(self, topic: str, first: int) -> None:
        if topic not in self.topics:
            return
        faults, log = self.upstream.faults, self.upstream.logs[topic]
        seqs = list(range(first, log.head + 1))
        sent = [seq for seq in seqs if faults.rng.random() >= faults.lose]
        sent += [seq for seq in sent if faults.rng.random() < faults.repeat]
        sent.sort(key=lambda seq: seq + (faults.rng.randint(0, 5) if faults.rng.random() < faults.delay else 0))
        for seq in sent:
            batch = frames_to_wire(Frames(topic, log.epoch, seq, [log.frames[seq - 1]], self.upstream.origin))
            self.queue.put_nowait(pb.WatchTopicsResponse(batches=[batch]))


async def _abort(context: Context, refusal: Refusal) -> None:
    trailers = ((STATUS_METADATA_KEY, to_status(refusal).SerializeToString()),)
    await context.abort(grpc.StatusCode[refusal.info.grpc_code], refusal.message, trailers)
