"""A producer that does not give up: it repeats an append with the same key until a replica acknowledges it.

It keeps the acknowledged appends, with their times, so that the log can be compared with them afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from benchmarks.stage import Stage
from openagents.runtime.v1 import event_pb2, run_service_pb2
from openagents.runtime.v1 import worker_service_pb2 as pb
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceStub
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceStub

RETRY_S = 0.02
"""Pause before asking or connecting again: short, so that the time measured is that of the service's absence."""
_CONNECT_S = 2.0
_ANSWER_S = 5.0
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.use_local_subchannel_pool", 1)]
_GONE = (grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class Acknowledged:
    """An append that was acknowledged. Times are of the monotonic clock."""

    seq: int
    data: bytes
    first_sent: float
    at: float


@dataclass
class Steadfast:
    """A worker with one run that appends event after event. Starts at the first target; if it fails, tries the next."""

    stage: Stage
    targets: Sequence[str]
    name: str
    """Unique in the stage; also its adapter, so that it gets its own run and no other."""
    pause_s: float = 0.005
    acknowledged: list[Acknowledged] = field(default_factory=list)
    resent: int = 0
    streams: int = 0
    run_id: str = ""
    _worker_id: str = ""
    _lease_epoch: int = 0
    _sent: int = 0
    _open: tuple[bytes, float] | None = None
    """The event that has been sent but not acknowledged, and when it was first sent."""

    async def work(self, until: asyncio.Event) -> None:
        """Append until `until` is set and everything sent has been acknowledged."""
        attempt = 0
        while not (until.is_set() and self._open is None):
            target = self.targets[attempt % len(self.targets)]
            try:
                async with grpc.aio.insecure_channel(target, options=_CHANNEL) as channel:
                    await self._stream(channel, until)
            except _GONE:
                attempt += 1
                await asyncio.sleep(RETRY_S)

    async def _stream(self, channel: grpc.aio.Channel, until: asyncio.Event) -> None:
        call: Any = WorkerServiceStub(channel).Attach(metadata=self.stage.as_worker)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._attach(channel, call)
            self.streams += 1
            while not (until.is_set() and self._open is None):
                await self._append(call)
                await asyncio.sleep(self.pause_s)
        finally:
            call.cancel()

    async def _attach(self, channel: grpc.aio.Channel, call: Any) -> None:
        """Attach with the lease that it holds; the first time, get a run."""
        held = [pb.HeldLease(run_id=self.run_id, lease_epoch=self._lease_epoch)] if self._lease_epoch else []
        hello = pb.WorkerHello(
            worker_id=self._worker_id,
            name=self.name,
            adapters=[self.name],
            max_concurrent_runs=1,
            held_leases=held,
        )
        await call.write(pb.AttachRequest(attach=hello))
        self._worker_id = (await _read(call, "attached")).attached.worker_id
        if held:
            return
        spec = event_pb2.RunSpec(adapter=self.name, prompt=event_pb2.PromptSpec(text="bench"))
        request = run_service_pb2.CreateRunRequest(idempotency_key=self.name, spec=spec)
        await RunServiceStub(channel).CreateRun(request, metadata=self.stage.as_person)
        assignment = (await _read(call, "assignment")).assignment
        self.run_id, self._lease_epoch = assignment.run.run_id, assignment.lease_epoch

    async def _append(self, call: Any) -> None:
        """Append one event, the open one first; a temporary refusal leaves it open."""
        if self._open is None:
            self._sent += 1
            self._open = f"event {self._sent} of {self.name}".encode(), time.monotonic()
        else:
            self.resent += 1
        data, first_sent = self._open
        delta = event_pb2.TextDelta(stream=event_pb2.TEXT_STREAM_STDOUT, data=data)
        request = pb.AppendEventsRequest(
            request_id=self._sent,
            run_id=self.run_id,
            lease_epoch=self._lease_epoch,
            idempotency_key=f"k{self._sent}",
            events=[event_pb2.EventBody(text_delta=delta)],
        )
        await call.write(pb.AttachRequest(append=request))
        async with asyncio.timeout(_ANSWER_S):
            answer = await call.read()
        if answer is grpc.aio.EOF:
            raise ConnectionError("the stream ended")
        if answer.WhichOneof("message") == "appended":
            self.acknowledged.append(Acknowledged(answer.appended.first_seq, data, first_sent, time.monotonic()))
            self._open = None
            return
        refused = answer.append_refused
        if refused.reason not in ("unavailable", "overloaded", "deadline_exceeded"):
            raise AssertionError(f"an append was refused for good: {answer}")
        await asyncio.sleep(RETRY_S)


async def _read(call: Any, kind: str) -> pb.AttachResponse:
    message = await call.read()
    if message is grpc.aio.EOF:
        raise ConnectionError("the stream ended")
    if message.WhichOneof("message") != kind:
        raise AssertionError(f"{kind} was expected: {message}")
    assert isinstance(message, pb.AttachResponse)
    return message


def recovered_at(acknowledged: Sequence[Acknowledged], killed_at: float) -> float | None:
    """When the first append that was sent after the kill was acknowledged; None if none has been yet."""
    return next((one.at for one in acknowledged if one.first_sent > killed_at), None)


def missing(acknowledged: Sequence[Acknowledged], stored: Mapping[int, bytes]) -> list[Acknowledged]:
    """Acknowledged appends that the log does not have at their seq. `stored`: seq -> text of the run's events."""
    return [one for one in acknowledged if stored.get(one.seq) != one.data]
