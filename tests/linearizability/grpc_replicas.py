"""Runs behind three whole replicas, spoken to over real gRPC through connections that get cut.

Appends go over the unary method, at any replica. Leases change hands as they do in earnest: workers attach and say
good-bye. What the authority then does by itself, nobody is told; it may happen at any time from then on.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc.aio

from oa_errors import Refusal
from oa_errors.status import STATUS_METADATA_KEY
from oa_platform.failures import refusal_from_rpc_error
from oa_platform.ids import new_id
from oa_platform.keys import generate_key
from oa_testing.fault_proxy import FaultProxy
from oa_testing.postgres import Database
from openagents.runtime.v1 import event_pb2, run_pb2, run_service_pb2, worker_service_pb2
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceStub
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceStub
from services.runtime.app.limits import WorkerLimits
from services.runtime.config import RunSettings
from services.runtime.tests.rig import FakeWorker, Replica, Somebody, replica, runtime_settings, text
from tests.order.harness import Trouble

from .replicas import REPLICAS, UNCERTAIN, refused
from .run_model import Answer, Append, Appended, Assign, Call, Cancel, Done, Latest, LoseLease, Read, RunLog, RunModel
from .workload import Notebook, Recorder, Uncertain

# Nobody is lost for being slow: what happens to a lease is what the test does.
_PATIENT = WorkerLimits(
    lost_after_ms=600_000, quiet_after_ms=600_000, watch_interval_ms=60_000, dispatch_interval_ms=50
)
_UNPACED = RunSettings(events_per_second=1_000_000, burst_events=1_000_000, cancel_deadline_ms=600_000)
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 5), ("grpc.max_reconnect_backoff_ms", 20)]
_HANDOVERS = 2
_SETUP_S = 0.5
"""A worker that has missed its assignment, because a connection was killed, is not waited for longer."""
_MOST_BYTES_TILL_CUT = 3000


class GrpcReplicas:
    """Three replicas; an async context manager."""

    def __init__(self, database: Database, trouble: Trouble, seed: int) -> None:
        self._database = database
        self._trouble = trouble
        self._chance = random.Random(seed)
        self._key = generate_key()
        self._stack = AsyncExitStack()
        self._direct: list[Replica] = []
        self._proxies: list[FaultProxy] = []
        self._channels: list[grpc.aio.Channel] = []
        self.cuts = 0

    async def __aenter__(self) -> GrpcReplicas:
        for _ in range(REPLICAS):
            settings = runtime_settings(self._database, workers=_PATIENT, runs=_UNPACED)
            direct = await self._stack.enter_async_context(replica(settings, self._key))
            proxy = FaultProxy("127.0.0.1", direct.server.port)
            await proxy.start()
            self._stack.push_async_callback(proxy.close)
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}", options=_CHANNEL)
            self._direct.append(direct)
            self._proxies.append(proxy)
            self._channels.append(await self._stack.enter_async_context(channel))
        for trouble in (self._cut_connections(), self._kill_connections()):
            self._stack.push_async_callback(_end, asyncio.create_task(trouble))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def new_run(self) -> RemoteRun:
        """A new run of somebody new, with a worker at one of the replicas that holds it."""
        while True:
            with suppress(grpc.aio.AioRpcError, Refusal, TimeoutError):
                async with asyncio.timeout(_SETUP_S):
                    return await self._started_run(Somebody(self._key))

    async def _started_run(self, who: Somebody) -> RemoteRun:
        worker = FakeWorker(self._direct[0], who, slots=1)
        await worker.attach()
        run = await self._direct[0].create(who, new_id("key"))
        await worker.next("assignment")
        start = RunLog(seq=2, worker=worker.worker_id, epoch=1)
        return RemoteRun(self._direct, self._channels, who, run.run_id, RunModel(start=start), worker, self._chance)

    async def _cut_connections(self) -> None:
        """Each cut falls somewhere in the next answers."""
        while True:
            await asyncio.sleep(self._chance.random() * 2 * self._trouble.kill_interval_s)
            self._chance.choice(self._proxies).truncate(self._chance.randrange(_MOST_BYTES_TILL_CUT))
            self.cuts += 1

    async def _kill_connections(self) -> None:
        admin = await asyncpg.connect(self._database.admin)
        try:
            while True:
                await asyncio.sleep(self._chance.random() * 2 * self._trouble.kill_interval_s)
                pids = await admin.fetch(
                    "SELECT pid FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'runtime' ORDER BY pid"
                )
                await admin.execute("SELECT pg_terminate_backend($1)", self._chance.choice(pids)["pid"])
        finally:
            admin.terminate()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass
class RemoteRun:
    """One run of them."""

    _direct: list[Replica]
    _channels: list[grpc.aio.Channel]
    _who: Somebody
    run_id: str
    model: RunModel
    _worker: FakeWorker
    _chance: random.Random
    replicas: int = REPLICAS
    takes: tuple[type, ...] = (Append, Read, Cancel)

    async def carry_out(self, replica: int, call: Call) -> Answer:
        """Ask a replica. What the transport says instead of the service leaves everything open."""
        try:
            return await self._ask(self._channels[replica], call)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_from_rpc_error(error)
            is_told = any(key == STATUS_METADATA_KEY for key, _ in error.trailing_metadata() or ())
            if refusal.reason in UNCERTAIN or not is_told:
                raise Uncertain from error
            return refused(refusal)

    async def _ask(self, channel: grpc.aio.Channel, call: Call) -> Answer:
        runs = RunServiceStub(channel)
        match call:
            case Append():
                request = _append(self.run_id, call)
                answer = await WorkerServiceStub(channel).AppendEvents(request, metadata=self._who.as_worker())
                return Appended(answer.first_seq, answer.last_seq, answer.already_appended)
            case Cancel():
                cancel = run_service_pb2.CancelRunRequest(run_id=self.run_id)
                await runs.CancelRun(cancel, metadata=self._who.as_person())
                return Done()
            case _:
                read = run_service_pb2.GetRunRequest(run_id=self.run_id)
                return _latest((await runs.GetRun(read, metadata=self._who.as_person())).run)

    async def meanwhile(self, recorder: Recorder, notebook: Notebook) -> None:
        """The run goes from worker to worker, at whatever replica."""
        try:
            for epoch in range(2, 2 + _HANDOVERS):
                await asyncio.sleep(self._chance.random() * 0.05)
                recorder.note_unanswered("auth", LoseLease(self._worker.worker_id, epoch - 1))
                await _say_goodbye(self._worker)
                # The id is known only afterwards, but the call has begun before.
                begun = recorder.now()
                self._worker = FakeWorker(self._chance.choice(self._direct), self._who, slots=1)
                await self._worker.attach()
                recorder.note_unanswered("auth", Assign(self._worker.worker_id), begun)
                assigned = (await self._worker.next("assignment")).assignment
                notebook.leases.append((self._worker.worker_id, assigned.lease_epoch))
        finally:
            self._worker.call.cancel()


async def _say_goodbye(worker: FakeWorker) -> None:
    goodbye = worker_service_pb2.WorkerGoodbye()
    await worker.call.write(worker_service_pb2.AttachRequest(goodbye=goodbye))
    await worker.call.done_writing()
    while await worker.call.read() is not grpc.aio.EOF:
        pass


def _append(run_id: str, call: Append) -> worker_service_pb2.AppendEventsRequest:
    bodies = [text(f"{call.content}{number}".encode()) for number in range(call.count)]
    if call.finish:
        outcome = event_pb2.RunOutcome.Value(f"RUN_OUTCOME_{call.finish.upper()}")
        bodies = [event_pb2.EventBody(run_finished=event_pb2.RunFinished(outcome=outcome, reason=call.content))]
    expected: dict[str, Any] = {} if call.expected_seq is None else {"expected_seq": call.expected_seq}
    return worker_service_pb2.AppendEventsRequest(
        run_id=run_id, lease_epoch=call.epoch, idempotency_key=call.key, events=bodies, **expected
    )


def _latest(run: run_pb2.Run) -> Latest:
    status = run_pb2.RunStatus.Name(run.status).removeprefix("RUN_STATUS_").lower()
    return Latest(run.latest_seq, status, run.lease_epoch)
