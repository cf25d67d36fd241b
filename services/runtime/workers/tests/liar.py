"""A worker that lies: it says about its own runs and those of others whatever an attacker could think of, by chance."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import grpc.aio

from oa_base.refusal import Refusal
from oa_platform.health.failures import refusal_from_rpc_error
from openagents.runtime.v1 import event_pb2, worker_service_pb2
from services.runtime.tests.rig import FakeWorker, Replica, Somebody, finish, text

LIE = b"a lie"
_OWN_WORD = "Internal error from Core"
"""What gRPC's client says of a stream that ended while it was written to; no server has said it."""
Body = event_pb2.EventBody


class Liar:
    """One such worker. `refusals` counts the answers that it got, by their reason."""

    def __init__(self, replica: Replica, who: Somebody, chance: random.Random, victims: Sequence[str]) -> None:
        """`victims`: runs of others, and workers."""
        self._replica = replica
        self._who = who
        self._chance = chance
        self._victims = list(victims)
        self._own: dict[str, int] = {}
        self.refusals: Counter[str] = Counter()
        self.stored = 0
        """Appends that were stored: to runs that it really holds."""

    async def lie(self, times: int) -> None:
        """Attach, lie, and attach again when the stream is ended for it."""
        left = times
        while left > 0:
            worker = FakeWorker(self._replica, self._who, slots=3)
            try:
                await worker.attach()
                reading = asyncio.create_task(self._read(worker))
                while left > 0 and not reading.done():
                    left -= 1
                    await self._say(worker)
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                worker.call.cancel()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, Refusal):
                pass  # the stream was ended under what it said; why is counted by whoever read it
            left -= 1

    async def _read(self, worker: FakeWorker) -> None:
        try:
            while (message := cast("Any", await worker.call.read())) is not grpc.aio.EOF:
                match message.WhichOneof("message"):
                    case "assignment":
                        self._own[message.assignment.run.run_id] = message.assignment.lease_epoch
                    case "append_refused":
                        self.refusals[message.append_refused.reason] += 1
                    case "appended":
                        self.stored += 1
        except grpc.aio.AioRpcError as error:
            self._count(error)

    def _count(self, error: grpc.aio.AioRpcError) -> None:
        if error.details() != _OWN_WORD:
            self.refusals[refusal_from_rpc_error(error).reason] += 1

    async def _say(self, worker: FakeWorker) -> None:
        says: Sequence[Callable[[FakeWorker], Any]] = (
            self._append,
            self._append,
            self._append,
            self._append_outside,
            self._claim,
            self._read_held,
            self._expire,
            self._hello_again,
            self._steal_identity,
        )
        try:
            await self._chance.choice(says)(worker)
        except grpc.aio.AioRpcError as error:
            self._count(error)

    def _run(self) -> str:
        return self._chance.choice([*self._victims, *self._victims, *self._own, "run_01JD8V0000000000000000000A"])

    def _epoch(self, run_id: str) -> int:
        return self._chance.choice([self._own.get(run_id, 1), 0, 1, 2, 7, 2**63 - 1, 2**64 - 1])

    def _request(self) -> worker_service_pb2.AppendEventsRequest:
        run_id = self._run()
        request = worker_service_pb2.AppendEventsRequest(
            request_id=self._chance.choice([0, 1, 2**64 - 1]),
            run_id=run_id,
            lease_epoch=self._epoch(run_id),
            idempotency_key=self._chance.choice(["a", "b", "request/r1", "x" * 128, str(self._chance.random())]),
            events=self._bodies(),
        )
        if self._chance.random() < 0.2:
            request.expected_seq = self._chance.choice([0, 1, 10**6, 2**64 - 1])
        return request

    def _bodies(self) -> list[Body]:
        w = event_pb2
        odd: list[list[Body]] = [
            [text(LIE)],
            [text(LIE)] * self._chance.choice([2, 50, 600]),
            [text(LIE * 60_000)],
            [text(LIE * 40_000)] * 8,
            [finish(), text(LIE)],
            [finish(), finish(w.RUN_OUTCOME_FAILED)],
            [Body(run_started=w.RunStarted(worker_id="wrk_x", lease_epoch=9, attempt=9))],
            [Body(run_created=w.RunCreated(user_id="u", org_id="o"))],
            [Body(request_answered=w.RequestAnswered(request_id="r1", option="yes", answered_by="usr_x"))],
            [Body(request_expired=w.RequestExpired(request_id="r1", option="yes"))],
            [Body(input_received=w.InputReceived(sent_by="usr_x", input_json='"lie"'))],
            [Body(executor_lost=w.ExecutorLost(worker_id="wrk_x", lease_epoch=1, attempt=1))],
            [Body(attempt_failed=w.AttemptFailed(worker_id="wrk_x", lease_epoch=1, attempt=1))],
            [Body(message=w.Message(role=cast("Any", 99), text="x"))],
            [Body()],
            [],
        ]
        return self._chance.choice(odd)

    async def _append(self, worker: FakeWorker) -> None:
        await worker.write(worker_service_pb2.AttachRequest(append=self._request()))

    async def _append_outside(self, _worker: FakeWorker) -> None:
        await self._replica.workers.AppendEvents(self._request(), metadata=self._who.as_worker())

    async def _claim(self, worker: FakeWorker) -> None:
        run_id = self._run()
        await worker.heartbeat(worker_service_pb2.HeldLease(run_id=run_id, lease_epoch=self._epoch(run_id)))

    async def _read_held(self, _worker: FakeWorker) -> None:
        run_id = self._run()
        request = worker_service_pb2.ReadHeldRunRequest(run_id=run_id, lease_epoch=self._epoch(run_id))
        answer = await self._replica.workers.ReadHeldRun(request, metadata=self._who.as_worker())
        assert run_id in self._own, f"it has read {len(answer.events)} events of a run that it does not hold"

    async def _expire(self, _worker: FakeWorker) -> None:
        run_id = self._run()
        request = worker_service_pb2.ExpireRequestRequest(
            run_id=run_id, lease_epoch=self._epoch(run_id), request_id=self._chance.choice(["r1", "r2"])
        )
        await self._replica.workers.ExpireRequest(request, metadata=self._who.as_worker())

    async def _hello_again(self, worker: FakeWorker) -> None:
        hello = worker_service_pb2.WorkerHello(name="again", adapters=["exec"], max_concurrent_runs=1)
        await worker.write(worker_service_pb2.AttachRequest(attach=hello))

    async def _steal_identity(self, _worker: FakeWorker) -> None:
        theirs = [one for one in self._victims if one.startswith("wrk_")]
        thief = FakeWorker(self._replica, self._who, worker_id=self._chance.choice(theirs))
        try:
            await thief.attach(worker_service_pb2.HeldLease(run_id=self._run(), lease_epoch=1))
        except Refusal as refusal:
            self.refusals[refusal.reason] += 1
        else:
            raise AssertionError("it has got another's worker id")
        finally:
            thief.call.cancel()
