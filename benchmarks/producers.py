"""Producers that append through gRPC like workers: one stream each, several appends in flight."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio

from benchmarks.measure import Append
from benchmarks.stage import Stage
from oa_platform.system.ids import new_id
from openagents.runtime.v1 import event_pb2, run_service_pb2
from openagents.runtime.v1 import worker_service_pb2 as pb
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceStub

_ATTACH = "/openagents.runtime.v1.WorkerService/Attach"


class Producer:
    """A worker with one run."""

    def __init__(self, call: Any, run_id: str, lease_epoch: int) -> None:
        self.run_id = run_id
        self._call = call
        self._lease_epoch = lease_epoch
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._writing = asyncio.Lock()  # gRPC allows one write at a time
        self._reading = asyncio.create_task(self._read())

    def append(self, events: Sequence[event_pb2.EventBody]) -> Append:
        """A function that appends these events, under a new key each time."""

        always = _attach_request(
            pb.AppendEventsRequest(run_id=self.run_id, lease_epoch=self._lease_epoch, events=events)
        )

        async def append(_call: int) -> int:
            number = next(self._numbers)
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._waiting[number] = answer
            # The concatenated bytes of two messages are their merge, so the load costs no more than it has to.
            once = _attach_request(pb.AppendEventsRequest(request_id=number, idempotency_key=f"k{number}"))
            async with self._writing:
                await self._call.write(once + always)
            return await answer

        return append

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._answered(message)
        finally:
            # Callers that still wait would otherwise wait forever.
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the producer's stream has ended"))

    def _answered(self, message: pb.AttachResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "appended":
            stored = message.appended.last_seq - message.appended.first_seq + 1
            self._waiting.pop(message.appended.request_id).set_result(stored)
        elif kind == "append_refused":
            refused = message.append_refused
            self._waiting.pop(refused.request_id).set_exception(RuntimeError(refused.reason))

    async def close(self) -> None:
        """End the run, so that no worker gets it again, and close the stream."""
        finish = event_pb2.RunFinished(outcome=event_pb2.RUN_OUTCOME_SUCCEEDED)
        await self.append([event_pb2.EventBody(run_finished=finish)])(0)
        await self._call.write(pb.AttachRequest(goodbye=pb.WorkerGoodbye()).SerializeToString())
        await self._call.done_writing()
        self._reading.cancel()
        self._call.cancel()


@asynccontextmanager
async def producers(stage: Stage, targets: Sequence[str], count: int) -> AsyncIterator[list[Producer]]:
    """`count` attached workers with a run each, spread over the replicas at `targets`."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(target)) for target in targets]
        made = []
        for number in range(count):
            producer = await _producer(stage, channels[number % len(channels)], f"bench-{number}")
            stack.push_async_callback(producer.close)
            made.append(producer)
        yield made


async def _producer(stage: Stage, channel: grpc.aio.Channel, key: str) -> Producer:
    attach: Any = channel.stream_stream(_ATTACH, response_deserializer=pb.AttachResponse.FromString)
    call: Any = attach(metadata=stage.as_worker)
    hello = pb.WorkerHello(name="bench", adapters=["exec"], max_concurrent_runs=1)
    await call.write(pb.AttachRequest(attach=hello).SerializeToString())
    assert (await call.read()).WhichOneof("message") == "attached"
    spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["bench", key]))
    request = run_service_pb2.CreateRunRequest(idempotency_key=new_id("key"), spec=spec)
    await RunServiceStub(channel).CreateRun(request, metadata=stage.as_person)
    message = await call.read()
    assert message.WhichOneof("message") == "assignment", message
    return Producer(call, message.assignment.run.run_id, message.assignment.lease_epoch)


def _attach_request(append: pb.AppendEventsRequest) -> bytes:
    return pb.AttachRequest(append=append).SerializeToString()


def text_events(count: int, size: int = 256) -> list[event_pb2.EventBody]:
    """`count` text deltas of `size` bytes each."""
    delta = event_pb2.TextDelta(stream=event_pb2.TEXT_STREAM_STDOUT, data=b"x" * size)
    return [event_pb2.EventBody(text_delta=delta) for _ in range(count)]
