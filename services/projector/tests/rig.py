"""The projection on a real database, as __main__ wires it, and a LogService to tail that does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from oa_platform.config.loading import load
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.pool import Postgres
from oa_runlog import events as e
from oa_runlog.wire import encode_body, encode_event
from oa_testing.postgres import ON_FAST, Database
from oa_testing.waiting import PATIENCE_S
from oa_topics.hub import TopicHub
from oa_topics.store import TopicLimits
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import log_service_pb2 as pb
from openagents.runtime.v1 import log_service_pb2_grpc
from services.projector.app.ports import Checkpoint
from services.projector.app.progress import Progress
from services.projector.app.projection import Projection
from services.projector.app.reads import Reads
from services.projector.app.tail import Tail, TailLimits
from services.projector.app.topics import JournalTopics, Unreported
from services.projector.grpc_api.log_source import GrpcLogSource
from services.projector.grpc_api.wire import SummaryCodec
from services.projector.store.journal import PgJournalStore
from services.projector.store.projections import PgProjectionStore
from services.projector.store.reads import PgReadStore
from services.projector.tests import histories as h

EPOCH = "log_test"
CODEC = SummaryCodec()
TOPIC_LIMITS = TopicLimits(poll_interval_ms=500)
QUICK = TailLimits(backoff_min_ms=1, backoff_max_ms=10, heads_interval_ms=20)
WAIT_S = PATIENCE_S


def database_settings(database: Database, **settings: str) -> DatabaseSettings:
    """As the environment would have them."""
    return load(DatabaseSettings, {"OA_DATABASE_URL": database.projector, **ON_FAST, **settings})


class Rig:
    """One process's worth of a projector, without its doors."""

    def __init__(self, postgres: Postgres, limits: TopicLimits = TOPIC_LIMITS) -> None:
        self.store = PgProjectionStore(postgres, CODEC)
        self.journal = PgJournalStore(postgres)
        self.reads = PgReadStore(postgres, CODEC)
        self.progress = Progress()
        self.hub = TopicHub(JournalTopics(self.journal), limits, Unreported())
        self.reader = Reads(self.reads)
        self.projection = Projection(self.store, CODEC, self.hub, self.progress)

    async def apply(self, checkpoint: Checkpoint, events: list[e.RunEvent]) -> Checkpoint:
        """Apply what follows `checkpoint`."""
        return await self.projection.apply(checkpoint, h.batch(checkpoint.partition, checkpoint.position + 1, events))

    async def checkpoint(self, partition: int = 0) -> Checkpoint:
        """The stored checkpoint."""
        return (await self.store.checkpoints(EPOCH, [partition]))[partition]

    def tail(self, channel: grpc.aio.Channel, limits: TailLimits = QUICK) -> Tail:
        """A tail of the log behind `channel`."""
        return Tail(GrpcLogSource(channel), self.store, self.projection, self.progress, limits=limits)


def event_bytes(event: e.RunEvent) -> bytes:
    """As runtime stores it."""
    body = encode_body(event.body)
    return encode_event(event.run_id, event.seq, event.recorded_ns, event.lease_epoch, body)


Meddle = Callable[[int, pb.TailLogResponse], pb.TailLogResponse | None]
"""Gets the number of the message on its stream and the message; gives what is sent instead, None to cut the stream."""


@dataclass
class FakeLog(log_service_pb2_grpc.LogServiceServicer):
    """runtime's LogService over lists. `meddle` does what a network, or a defect, would."""

    partitions: dict[int, list[bytes]]
    epoch: str = EPOCH
    page: int = 5
    meddle: Meddle = lambda _, message: message
    requests: list[dict[int, int]] = field(default_factory=list)
    heads_offset: int = 0
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def append(self, partition: int, events: list[e.RunEvent]) -> None:
        """Commit events."""
        self.partitions[partition].extend(event_bytes(event) for event in events)
        async with self._grown:
            self._grown.notify_all()

    async def DescribeLog(self, request: pb.DescribeLogRequest, context: Any) -> pb.DescribeLogResponse:
        heads = [
            cursor_pb2.LogPosition(partition=partition, position=len(entries) + self.heads_offset)
            for partition, entries in self.partitions.items()
        ]
        return pb.DescribeLogResponse(epoch=self.epoch, heads=heads)

    async def TailLog(self, request: pb.TailLogRequest, context: Any) -> AsyncIterator[pb.TailLogResponse]:
        at = {position.partition: position.position for position in request.after}
        self.requests.append(dict(at))
        sent = 0
        while True:
            for message in self._ready(at):
                meddled = self.meddle(sent, message)
                sent += 1
                if meddled is None:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
                assert meddled is not None
                yield meddled
            async with self._grown:
                if not any(len(entries) > at[partition] for partition, entries in self.partitions.items()):
                    await self._grown.wait()

    def _ready(self, at: dict[int, int]) -> list[pb.TailLogResponse]:
        """The next page of each partition that has one."""
        messages = []
        for partition, entries in self.partitions.items():
            page = entries[at[partition] : at[partition] + self.page]
            if page:
                first = at[partition] + 1
                messages.append(
                    pb.TailLogResponse(epoch=self.epoch, partition=partition, first_position=first, events=page)
                )
                at[partition] += len(page)
        return messages


@asynccontextmanager
async def listening(log: FakeLog) -> AsyncIterator[int]:
    """The port of a server of `log`."""
    server = grpc.aio.server()
    log_service_pb2_grpc.add_LogServiceServicer_to_server(log, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@asynccontextmanager
async def serving(log: FakeLog) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of `log`."""
    async with listening(log) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel


async def until(condition: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Wait for a condition; fails when it does not come true."""
    async with asyncio.timeout(wait_s):
        while not condition():
            await asyncio.sleep(0.005)
