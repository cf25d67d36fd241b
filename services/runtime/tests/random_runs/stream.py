"""A worker's stream that is read all the time: answers go to who asked, notices are kept until they are expected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import grpc.aio

from oa_testing.waiting import eventually
from openagents.runtime.v1 import worker_service_pb2 as pb
from services.runtime.tests.random_runs.records import Answer, Stored
from services.runtime.tests.random_runs.spoken import notice_of
from services.runtime.tests.rig import Doors, FakeWorker, Somebody, refusing

Notice = tuple[str, str, int]
SLOTS = 100


class Stream:
    """The worker's end."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._requests = 0
        self.arrived: list[Notice] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, runtime: Doors, who: Somebody, worker_id: str, held: Mapping[str, int]) -> Stream:
        """Attach; an empty id gets a new one."""
        worker = FakeWorker(runtime, who, worker_id, slots=SLOTS)
        await worker.attach(*leases(held))
        return cls(worker)

    @property
    def worker_id(self) -> str:
        """The worker's id."""
        return self._worker.worker_id

    async def _read(self) -> None:
        while (message := await refusing(self._worker.call.read())) is not grpc.aio.EOF:
            match message.WhichOneof("message"):
                case "appended":
                    self._answers.pop(message.appended.request_id).set_result(stored(message.appended))
                case "append_refused":
                    self._answers.pop(message.append_refused.request_id).set_result(message.append_refused.reason)
                case _:
                    self.arrived.append(notice_of(message))

    async def append(self, request: pb.AppendEventsRequest) -> Answer:
        """Append, and wait for the answer."""
        self._requests += 1
        request.request_id = self._requests
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[self._requests] = answer
        await self._worker.write(pb.AttachRequest(append=request))
        await self.until(answer.done)
        return answer.result()

    async def expect(self, notice: Notice) -> None:
        """Wait for a notice, and take it."""
        await self.until(lambda: notice in self.arrived)
        self.arrived.remove(notice)

    async def assignment(self) -> Notice:
        """Wait for any assignment, and take it."""
        await self.until(lambda: any(kind == "assignment" for kind, _, _ in self.arrived))
        notice = next(notice for notice in self.arrived if notice[0] == "assignment")
        self.arrived.remove(notice)
        return notice

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition, or for the end of the stream, which is none."""
        await eventually(lambda: holds() or self._reading.done())
        if not holds():
            self._reading.result()
            raise AssertionError("the stream has ended")

    async def beat(self, held: Mapping[str, int]) -> None:
        """A heartbeat with the leases that the worker believes to have."""
        await self._worker.heartbeat(*leases(held))

    async def drain(self) -> None:
        """Take nothing new. An append after it is answered when that is known."""
        await self._worker.write(pb.AttachRequest(drain=pb.WorkerDrain()))

    async def goodbye(self) -> None:
        """Give up everything, and close."""
        await self._worker.write(pb.AttachRequest(goodbye=pb.WorkerGoodbye()))
        await self.close()

    async def close(self) -> None:
        """Close the stream. The worker may come back."""
        await self._worker.call.done_writing()
        await self._reading

    async def cancel(self) -> None:
        """End the stream, however it stands."""
        self._worker.call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


def leases(held: Mapping[str, int]) -> Sequence[pb.HeldLease]:
    """Leases as they are said."""
    return [pb.HeldLease(run_id=run_id, lease_epoch=epoch) for run_id, epoch in held.items()]


def stored(response: pb.AppendEventsResponse) -> Stored:
    """The answer to an append in the model's words."""
    return Stored(response.first_seq, response.last_seq, response.already_appended)
