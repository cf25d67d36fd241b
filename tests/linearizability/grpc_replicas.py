"""Runs behind three whole replicas, spoken to over real gRPC through connections that get cut.

Appends go over the unary method and over workers' streams, at any replica. Leases change hands as they do in earnest:
workers attach and say good-bye. What the authority does by itself then, or when a cancel's deadline is over, nobody is
told; it may happen at any time from then on.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import asyncpg
import grpc.aio

from oa_base.refusal import Refusal
from oa_platform.auth.keys import generate_key
from oa_platform.health.failures import refusal_from_rpc_error
from oa_platform.system.ids import new_id
from oa_testing.peers.fault_proxy import Direction, FaultProxy
from oa_testing.postgres import Database
from oa_wire.status import STATUS_METADATA_KEY
from openagents.runtime.v1 import run_pb2, run_service_pb2
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceStub
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceStub
from services.runtime.config import RunSettings, WorkerSettings
from services.runtime.tests.rig import FakeWorker, Replica, Somebody, replica, runtime_settings
from tests.order.harness import Calls

from .replicas import REPLICAS, UNCERTAIN, refused
from .run_model import Answer, Append, Appended, Assign, Call, Cancel, Done, Latest, LoseLease, Read, RunLog, RunModel
from .streams import BROKEN, Lease, StreamClient, append_request, end, say_goodbye
from .workload import Notebook, Recorder, Uncertain

# Nobody is lost for being slow: what happens to a lease is what the test does.
_PATIENT = WorkerSettings(lost_after_ms=600_000, quiet_after_ms=600_000, watch_interval_ms=10, dispatch_interval_ms=50)
CANCEL_DEADLINE_MS = 120
_CALLS_PER_CUT = 40
"""On average; and so many from one killed connection of the database to the next."""
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 5), ("grpc.max_reconnect_backoff_ms", 20)]
_MAX_HANDOVERS = 2
_SETUP_S = 0.5
"""A worker that has missed its assignment, because a connection was killed, is not waited for longer at first."""
# A request carries its caller's token, and an answer not even a seq's worth of it.
_MAX_BYTES_TILL_CUT = {Direction.TO_SERVER: 30_000, Direction.TO_CLIENT: 5_000}


class GrpcReplicas:
    """Three replicas; an async context manager."""

    def __init__(
        self,
        database: Database,
        seed: int,
        *,
        kept_deadline_ms: int = CANCEL_DEADLINE_MS,
        promised_deadline_ms: int = CANCEL_DEADLINE_MS,
    ) -> None:
        """The two deadlines are for a canceled run to end: the replicas keep the one, and clients expect the other."""
        self._database = database
        self._promised_deadline_s = promised_deadline_ms / 1000
        self._chance = random.Random(seed)
        self._runs = RunSettings(
            events_per_second=1_000_000, burst_events=1_000_000, cancel_deadline_ms=kept_deadline_ms
        )
        self._key = generate_key()
        self._stack = AsyncExitStack()
        self._direct: list[Replica] = []
        self._proxies: list[FaultProxy] = []
        self._channels: list[grpc.aio.Channel] = []
        self._calls = Calls()
        self.cuts = 0

    async def __aenter__(self) -> GrpcReplicas:
        for _ in range(REPLICAS):
            settings = runtime_settings(self._database, workers=_PATIENT, runs=self._runs)
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
        patience_s = _SETUP_S
        while True:
            with suppress(grpc.aio.AioRpcError, Refusal, TimeoutError):
                async with asyncio.timeout(patience_s):
                    return await self._started_run(Somebody(self._key))
            patience_s += _SETUP_S

    async def _started_run(self, who: Somebody) -> RemoteRun:
        worker = FakeWorker(self._direct[0], who, slots=1)
        await worker.attach()
        run = await self._direct[0].create(who, new_id("key"))
        await worker.next("assignment")
        await end(worker.call)
        start = RunLog(seq=2, worker=worker.worker_id, epoch=1)
        return RemoteRun(
            self._direct,
            self._channels,
            self._calls,
            who,
            run.run_id,
            RunModel(start=start),
            self._chance,
            self._promised_deadline_s,
        )

    async def _cut_connections(self) -> None:
        """Each cut falls somewhere in what is asked or answered next."""
        while True:
            await self._calls.passed(self._chance.random() * 2 * _CALLS_PER_CUT)
            proxy, direction = self._chance.choice(self._proxies), self._chance.choice(list(Direction))
            proxy.truncate(self._chance.randrange(_MAX_BYTES_TILL_CUT[direction]), direction)
            self.cuts += 1

    async def _kill_connections(self) -> None:
        admin = await asyncpg.connect(self._database.admin)
        try:
            while True:
                await self._calls.passed(self._chance.random() * 2 * _CALLS_PER_CUT)
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
    _calls: Calls
    _who: Somebody
    run_id: str
    model: RunModel
    _chance: random.Random
    cancel_deadline_s: float | None
    replicas: int = REPLICAS
    takes: tuple[type, ...] = (Append, Read, Cancel)

    async def carry_out(self, replica: int, call: Call) -> Answer:
        """Ask a replica. What the transport says instead of the service leaves everything open."""
        self._calls.note()
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
                request = append_request(self.run_id, call)
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
        """The run goes from worker to worker, at whatever replica, while appends come over a stream too."""
        appending = StreamClient(self.run_id, self._channels, self._who, self._chance, recorder, notebook)
        async with asyncio.TaskGroup() as group:
            group.create_task(appending.work())
            for _ in range(self._chance.randint(0, _MAX_HANDOVERS)):
                await asyncio.sleep(self._chance.random() * 0.05)
                recorder.note_unanswered("auth", LoseLease(*notebook.leases[-1]))
                channel = self._chance.choice(self._direct).channel
                await say_goodbye(channel, self._who, self.run_id, notebook.leases[-1])
                notebook.leases.append(await self._next_holder(recorder))

    async def _next_holder(self, recorder: Recorder) -> Lease:
        while True:
            begun = recorder.now()
            worker = FakeWorker(self._chance.choice(self._direct), self._who, slots=1)
            try:
                await worker.attach()
                assigned = (await worker.next("assignment")).assignment
                await end(worker.call)
                return worker.worker_id, assigned.lease_epoch
            except (Refusal, *BROKEN):
                await asyncio.sleep(0.005)
            finally:
                # The id is known only now, and maybe never: the run may have gone to who was not told.
                recorder.note_unanswered("auth", Assign(worker.worker_id or "somebody"), begun)
                worker.call.cancel()


def _latest(run: run_pb2.Run) -> Latest:
    status = run_pb2.RunStatus.Name(run.status).removeprefix("RUN_STATUS_").lower()
    return Latest(run.latest_seq, status, run.lease_epoch)
