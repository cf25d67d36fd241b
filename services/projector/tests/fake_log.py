"""A LogService to tail that does what it is told, and the runs that stand in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from oa_runlog import events as e
from oa_testing.peers.revocations import ScriptedRevocations
from openagents.common.v1 import cursor_pb2
from openagents.control.v1.revocation_service_pb2_grpc import add_RevocationServiceServicer_to_server
from openagents.runtime.v1 import log_service_pb2 as pb
from openagents.runtime.v1 import log_service_pb2_grpc
from services.projector.tests import histories as h

EPOCH = "log_test"
PARTITIONS = 4


def some_runs(count: int = 40) -> list[list[e.RunEvent]]:
    """Whole runs of several owners."""
    return [h.whole_run(n, h.ulid("usr", n % 3), h.ulid("org", n % 2), deltas=n % 7) for n in range(count)]


def spread(runs: list[list[e.RunEvent]], seed: int = 1) -> dict[int, list[bytes]]:
    """A log of these runs: each in one partition, mixed there by chance."""
    chance = random.Random(seed)
    log: dict[int, list[bytes]] = {partition: [] for partition in range(PARTITIONS)}
    for partition, entries in log.items():
        waiting = [list(run) for number, run in enumerate(runs) if number % PARTITIONS == partition]
        while waiting:
            run = chance.choice(waiting)
            entries.append(h.event_bytes(run.pop(0)))
            waiting = [one for one in waiting if one]
    return log


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
        self.partitions[partition].extend(h.event_bytes(event) for event in events)
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
async def listening(log: FakeLog, control: ScriptedRevocations | None = None) -> AsyncIterator[int]:
    """The port of a server of `log`, and of control's revocations: by default, there are none."""
    server = grpc.aio.server()
    log_service_pb2_grpc.add_LogServiceServicer_to_server(log, server)
    add_RevocationServiceServicer_to_server(control or ScriptedRevocations(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@asynccontextmanager
async def serving(log: FakeLog) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of `log`."""
    async with listening(log) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
