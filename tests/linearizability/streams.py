"""A worker's end of Attach streams: several appends on their way at a time, and after every cut a new stream, maybe at
another replica, on which what had no answer is sent again.

Its streams only append. No run is ever assigned to them, so that the test decides who gets a lease.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import grpc.aio

from oa_base.refusal import Refusal
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1 import worker_service_pb2 as pb
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceStub
from services.runtime.tests.rig import Somebody, text

from .checker import UNKNOWN, Unknown
from .replicas import UNCERTAIN, refused
from .run_model import Answer, Append, Appended, RunOperation
from .workload import Notebook, Recorder

Lease = tuple[str, int]
"""Worker and epoch."""
BROKEN = (grpc.aio.AioRpcError, ConnectionResetError, asyncio.InvalidStateError, TimeoutError)
"""How a stream ends before its time; an InvalidStateError is grpc's for writing to one that is over."""
_ON_THEIR_WAY = 4
_MAX_STREAM_S = 2.0
_MAX_APPENDS = 15
"""Of one history, so that the search stays short."""
_KEYS = 25


def append_request(run_id: str, call: Append, request_id: int = 0) -> pb.AppendEventsRequest:
    """The message for an append of the model."""
    bodies = [text(f"{call.content}{number}".encode()) for number in range(call.count)]
    if call.finish:
        outcome = event_pb2.RunOutcome.Value(f"RUN_OUTCOME_{call.finish.upper()}")
        bodies = [event_pb2.EventBody(run_finished=event_pb2.RunFinished(outcome=outcome, reason=call.content))]
    expected: dict[str, Any] = {} if call.expected_seq is None else {"expected_seq": call.expected_seq}
    return pb.AppendEventsRequest(
        request_id=request_id,
        run_id=run_id,
        lease_epoch=call.epoch,
        idempotency_key=call.key,
        events=bodies,
        **expected,
    )


async def attach(channel: grpc.aio.Channel, who: Somebody, run_id: str, lease: Lease) -> Any:
    """A stream that speaks for the holder of a lease; an older one of it ends. Raises one of BROKEN."""
    worker_id, epoch = lease
    call = WorkerServiceStub(channel).Attach(metadata=who.as_worker())
    hello = pb.WorkerHello(
        worker_id=worker_id,
        name="stream",
        adapters=["none"],
        max_concurrent_runs=1,
        held_leases=[pb.HeldLease(run_id=run_id, lease_epoch=epoch)],
    )
    await call.write(pb.AttachRequest(attach=hello))
    if await call.read() is grpc.aio.EOF:
        raise ConnectionResetError("the stream ended at once")
    return call


async def say_goodbye(channel: grpc.aio.Channel, who: Somebody, run_id: str, lease: Lease) -> None:
    """Give a lease up, again and again until nothing comes between."""
    while True:
        with suppress(*BROKEN):
            call = await attach(channel, who, run_id, lease)
            await call.write(pb.AttachRequest(goodbye=pb.WorkerGoodbye()))
            await end(call)
            return
        await asyncio.sleep(0.005)


async def end(call: Any) -> None:
    """Leave a stream; afterwards the authority knows."""
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


@dataclass
class StreamClient:
    """Appends to one run, over stream after stream."""

    run_id: str
    channels: Sequence[grpc.aio.Channel]
    who: Somebody
    chance: random.Random
    recorder: Recorder
    notebook: Notebook
    _streams: int = 0
    _left: int = _MAX_APPENDS
    _again: list[Append] = field(default_factory=list)

    async def work(self) -> None:
        """Until everything is sent, or canceled."""
        me = asyncio.current_task()
        assert me is not None
        # A stream that breaks hides a cancellation that comes at the same time (CPython before 3.13).
        while self._left > 0 and not me.cancelling():
            try:
                async with asyncio.timeout(_MAX_STREAM_S):
                    await self._stream(self.notebook.any_lease(self.chance))
            except* BROKEN:
                pass
            await asyncio.sleep(self.chance.random() * 0.005)

    async def _stream(self, lease: Lease) -> None:
        call = await attach(self.chance.choice(self.channels), self.who, self.run_id, lease)
        self._streams += 1
        sent = _Sent(f"stream {self._streams}", self.recorder, self.notebook)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(sent.read_answers(call))
                await self._write(call, sent, lease)
        finally:
            call.cancel()
            self._again += sent.give_up()

    async def _write(self, call: Any, sent: _Sent, lease: Lease) -> None:
        for _ in range(self.chance.randint(3, 12)):
            append = self._next(lease)
            await sent.room.acquire()
            request = append_request(self.run_id, append, sent.enter(append))
            await call.write(pb.AttachRequest(append=request))
        if self.chance.random() < 0.8:
            await sent.all_answered()
            await call.done_writing()
        call.cancel()  # with whatever is still on its way

    def _next(self, lease: Lease) -> Append:
        """What had no answer first, in its order, and by whoever has the lease now."""
        worker, epoch = lease
        if self._again:
            return replace(self._again.pop(0), worker=worker, epoch=epoch)
        self._left -= 1
        chance = self.chance.random()
        key = f"s{self.chance.randrange(_KEYS)}" if chance < 0.9 else ""  # without a key it is refused at the door
        finish = "succeeded" if chance < 0.03 and self._left < _MAX_APPENDS / 2 else ""
        expected = self.chance.choices([None, self.notebook.seq], (4, 1))[0]
        return Append(key, "x", 1 if finish else self.chance.randint(1, 3), expected, worker, epoch, finish)


class _Sent:
    """The appends of one stream that are on their way."""

    def __init__(self, stream: str, recorder: Recorder, notebook: Notebook) -> None:
        self.room = asyncio.Semaphore(_ON_THEIR_WAY)
        self._stream = stream
        self._recorder = recorder
        self._notebook = notebook
        self._pending: dict[int, tuple[Append, float]] = {}
        self._uncertain: list[Append] = []
        self._last_id = 0

    def enter(self, append: Append) -> int:
        """Note an append that is about to be sent; its number."""
        self._last_id += 1
        self._pending[self._last_id] = append, self._recorder.now()
        return self._last_id

    async def all_answered(self) -> None:
        """Wait until nothing is on its way."""
        for _ in range(_ON_THEIR_WAY):
            await self.room.acquire()

    async def read_answers(self, call: Any) -> None:
        """Until the stream is over; raises one of BROKEN then."""
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.HasField("appended"):
                answer = message.appended
                self._settle(answer, Appended(answer.first_seq, answer.last_seq, answer.already_appended))
            elif message.HasField("append_refused"):
                answer = message.append_refused
                if answer.reason == "append_out_of_order":
                    self._send_again(answer)
                    continue
                known = answer.reason not in UNCERTAIN
                refusal = Refusal(answer.reason, answer.message, metadata=dict(answer.metadata))
                self._settle(answer, refused(refusal) if known else UNKNOWN)
        raise ConnectionResetError("the stream is over")

    def give_up(self) -> list[Append]:
        """What has got no answer: noted as such, and to be sent again."""
        lost = [append for append, _ in self._pending.values()]
        for append, invoked in self._pending.values():
            self._note(append, UNKNOWN, invoked, inf)
        self._pending.clear()
        return [*self._uncertain, *lost]

    def _send_again(self, message: pb.AppendRefused) -> None:
        """It would have overtaken one that is to be sent again: the run is as before, and it waits behind that."""
        self._check_turn(message)
        append, _ = self._pending.pop(message.request_id)
        self._uncertain.append(append)
        self.room.release()

    def _settle(self, message: pb.AppendEventsResponse | pb.AppendRefused, answer: Answer | Unknown) -> None:
        self._check_turn(message)
        append, invoked = self._pending.pop(message.request_id)
        if isinstance(answer, Unknown):
            self._uncertain.append(append)
            self._note(append, answer, invoked, inf)
        else:
            self._note(append, answer, invoked, self._recorder.now())
            self._notebook.learn(append, answer)
        self.room.release()

    def _check_turn(self, message: pb.AppendEventsResponse | pb.AppendRefused) -> None:
        first = next(iter(self._pending), None)
        if message.request_id != first:
            order = f"{self._stream}: the answer to {message.request_id} came, and {first} had none yet"
            self._recorder.complaints.append(f"answered out of order, {order}")

    def _note(self, append: Append, answer: Answer | Unknown, invoked: float, returned: float) -> None:
        # Who broke a rule of the message is told so before the run is looked at: that takes no turn.
        stream = self._stream if append.key else ""
        self._recorder.history.append(RunOperation("s", append, answer, invoked, returned, stream))
