"""What the runtime's tests share: a whole replica on a fresh database, spoken to over real gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from oa_base.identity import ISSUER
from oa_base.refusal import Refusal
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import SigningKey, generate_key
from oa_platform.auth.revocations import Revocations
from oa_platform.auth.tokens import sign_token
from oa_platform.config.loading import load
from oa_platform.config.parsers import Address, Secret
from oa_platform.config.shared import token_hash
from oa_platform.health.failures import refusal_from_rpc_error
from oa_platform.health.readiness import Readiness
from oa_platform.process.lifecycle import Process
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.ids import new_id
from oa_testing.postgres import ON_FAST, PATIENT, Database
from oa_wire.status import LOST_STATUS, from_code
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2
from openagents.runtime.v1 import event_pb2, run_pb2, run_service_pb2, worker_service_pb2
from openagents.runtime.v1.log_service_pb2_grpc import LogServiceStub
from openagents.runtime.v1.receipt_service_pb2_grpc import ReceiptServiceStub
from openagents.runtime.v1.replay_service_pb2_grpc import ReplayServiceStub
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceStub
from openagents.runtime.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceStub
from openagents.sync.v1.topic_service_pb2_grpc import TopicServiceStub
from services.runtime.config import RunSettings, RuntimeSettings, WorkerSettings
from services.runtime.wiring import serve

T = TypeVar("T")
CONTROL_TOKEN, GATEWAY_TOKEN, PROJECTOR_TOKEN = "control's token", "the gateway's token", "the projector's token"
_TOKENS = {"control": CONTROL_TOKEN, "khala_gateway": GATEWAY_TOKEN, "projector": PROJECTOR_TOKEN}
# Many times as fast as in earnest, in the same proportions; whoever beats (`keep_beating`) may miss dozens of beats.
QUICK_WORKERS = WorkerSettings(
    heartbeat_interval_ms=700,
    quiet_after_ms=2_000,
    lost_after_ms=4_000,
    watch_interval_ms=50,
    dispatch_interval_ms=100,
    retry_initial_ms=50,
)
QUICK_RUNS = RunSettings(cancel_deadline_ms=400)
# For whoever doesn't wait for a loss: fake workers send no heartbeats, and machines may be slow. Twenty looks for
# silence in a second would be most of the work of a replica that waits.
PATIENT_WORKERS = replace(QUICK_WORKERS, quiet_after_ms=300_000, lost_after_ms=600_000, watch_interval_ms=500)


def receipt_pem() -> str:
    """A new key for receipts."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def runtime_settings(database: Database, **changes: Any) -> RuntimeSettings:
    """Settings for a replica in this process, which loses no worker by itself; `changes` replace groups."""
    env = {
        "OA_DATABASE_URL": database.runtime,
        **ON_FAST,
        **PATIENT,
        "OA_SERVICE_TOKEN": "runtime's token",
        "OA_ACCEPTED_SERVICES": ",".join(f"{name}={token_hash(token)}" for name, token in _TOKENS.items()),
        "OA_RECEIPT_KEY": receipt_pem(),
        "OA_GRPC_ADDRESS": "127.0.0.1:0",
        "OA_GRPC_STREAM_DRAIN_S": "0.5",
        "OA_DATABASE_POOL_MIN": "1",
    }
    settings = load(RuntimeSettings, env)
    assert settings.grpc.address == Address("127.0.0.1", 0)
    assert isinstance(settings.receipt_key, Secret)
    given: dict[str, Any] = {"workers": PATIENT_WORKERS, **changes}
    return replace(settings, **given)


@dataclass
class Somebody:
    """A person, or the service account of a worker."""

    key: SigningKey
    org_id: str = field(default_factory=lambda: new_id("org"))
    user_id: str = field(default_factory=lambda: new_id("usr"))
    account_id: str = field(default_factory=lambda: new_id("sva"))

    def as_person(self, *scopes: str) -> list[tuple[str, str]]:
        """Metadata of a call that control makes for the person."""
        claims = claims_pb2.PrincipalClaims(
            sub=self.user_id, kind=principal_pb2.PRINCIPAL_KIND_USER, **self._claims(60, scopes or _ALL)
        )
        return [("x-oa-service-token", CONTROL_TOKEN), ("x-oa-principal", sign_token(claims, self.key))]

    def as_worker(self) -> list[tuple[str, str]]:
        """Metadata of a worker's call."""
        claims = claims_pb2.WorkerTokenClaims(
            sub=self.account_id,
            kind=principal_pb2.PRINCIPAL_KIND_WORKER,
            **self._claims(600, ("workers.attach",)),
        )
        return [("authorization", f"Bearer {sign_token(claims, self.key)}")]

    def _claims(self, ttl_s: int, scopes: tuple[str, ...]) -> dict[str, Any]:
        now = int(time.time())
        times = {"iat": now, "nbf": now, "exp": now + ttl_s}
        return {"iss": ISSUER, "aud": "runtime", "jti": new_id("jti"), "org_id": self.org_id, "scopes": scopes} | times


_ALL = ("runs.read", "runs.write")
AS_GATEWAY = [("x-oa-service-token", GATEWAY_TOKEN)]
AS_PROJECTOR = [("x-oa-service-token", PROJECTOR_TOKEN)]


class Doors:
    """What a replica answers, wherever it runs."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.runs = RunServiceStub(channel)
        self.receipts = ReceiptServiceStub(channel)
        self.replays = ReplayServiceStub(channel)
        self.schedules = ScheduleServiceStub(channel)
        self.log = LogServiceStub(channel)
        self.topics = TopicServiceStub(channel)
        self.workers = WorkerServiceStub(channel)

    async def create(
        self,
        who: Somebody,
        key: str = "k",
        *argv: str,
        retention_class: str = "",
        queue: event_pb2.QueuePolicy | None = None,
        thread: tuple[str, event_pb2.ThreadPolicy.ValueType] = ("", event_pb2.THREAD_POLICY_UNSPECIFIED),
    ) -> Any:
        """A run of `argv`."""
        command = event_pb2.ExecSpec(argv=argv or ("true",))
        spec = event_pb2.RunSpec(adapter="exec", exec=command, retention_class=retention_class, queue=queue)
        spec.thread_id, spec.thread_policy = thread
        request = run_service_pb2.CreateRunRequest(idempotency_key=key, spec=spec)
        return (await self.runs.CreateRun(request, metadata=who.as_person())).run

    async def run(self, who: Somebody, run_id: str) -> Any:
        """A run as it is now."""
        request = run_service_pb2.GetRunRequest(run_id=run_id)
        return (await self.runs.GetRun(request, metadata=who.as_person())).run


class Replica(Doors):
    """One runtime process's worth, in this process."""

    def __init__(
        self, server: GrpcServer, channel: grpc.aio.Channel, readiness: Readiness, revocations: Revocations
    ) -> None:
        super().__init__(channel)
        self.revocations = revocations
        self.server = server
        self.readiness = readiness


@asynccontextmanager
async def replica(settings: RuntimeSettings, key: SigningKey) -> AsyncIterator[Replica]:
    """A replica that runs for a block."""
    process = Process(Readiness(10))
    process.readiness.phase = "running"
    async with AsyncExitStack() as stack:
        closing = stack.push_async_callback(process.close)
        revocations = Revocations(process.clock)
        server = await serve(settings, process, StaticKeys([key.public_key]), revocations=revocations)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
        # Left first: what a drain says to its clients is heard.
        stack.push_async_callback(closing)
        yield Replica(server, channel, process.readiness, revocations)


_LOST = from_code("INTERNAL", LOST_STATUS).message


class FakeWorker:
    """The worker's end of an Attach stream."""

    def __init__(
        self,
        replica: Doors,
        who: Somebody,
        worker_id: str = "",
        slots: int = 4,
        agents: Sequence[worker_service_pb2.Agent] = (),
    ) -> None:
        self._open = partial(replica.workers.Attach, metadata=who.as_worker())
        self.call = self._open()
        self._agents = agents
        self.worker_id = worker_id
        self._slots = slots
        self._requests = 0
        self._writing = asyncio.Lock()  # a call takes one write at a time

    async def attach(self, *held: worker_service_pb2.HeldLease) -> worker_service_pb2.WorkerAttached:
        """Say hello and read the answer. A refusal that gRPC lost while the call was sending (`LOST_STATUS`) is asked
        for again."""
        hello = worker_service_pb2.WorkerHello(
            worker_id=self.worker_id,
            name="fake",
            adapters=["exec", *(agent.name for agent in self._agents)],
            agents=self._agents,
            max_concurrent_runs=self._slots,
            held_leases=held,
        )
        while True:
            try:
                await self.write(worker_service_pb2.AttachRequest(attach=hello))
                attached: worker_service_pb2.WorkerAttached = (await self.next("attached")).attached
            except Refusal as refusal:
                if refusal.message != _LOST:
                    raise
                self.call = self._open()
            else:
                self.worker_id = attached.worker_id
                return attached

    async def next(self, kind: str) -> Any:
        """The next message, which must be of this kind."""
        message = await refusing(self.call.read())
        assert message is not grpc.aio.EOF, f"the stream ended; {kind} was expected"
        assert message.WhichOneof("message") == kind, message
        return message

    async def append(self, run_id: str, epoch: int, key: str, *bodies: event_pb2.EventBody) -> Any:
        """Append and read the answer: `appended` or `append_refused`."""
        self._requests += 1
        request = worker_service_pb2.AppendEventsRequest(
            request_id=self._requests, run_id=run_id, lease_epoch=epoch, idempotency_key=key, events=bodies
        )
        await self.write(worker_service_pb2.AttachRequest(append=request))
        answer = await refusing(self.call.read())
        return getattr(answer, answer.WhichOneof("message"))

    async def heartbeat(self, *held: worker_service_pb2.HeldLease) -> None:
        """A sign of life."""
        beat = worker_service_pb2.WorkerHeartbeat(held_leases=held)
        await self.write(worker_service_pb2.AttachRequest(heartbeat=beat))

    async def write(self, request: worker_service_pb2.AttachRequest) -> None:
        """Send one message, while heartbeats may be sent beside it. Raises the Refusal that has ended the stream."""
        async with self._writing:
            try:
                await refusing(self.call.write(request))
            except asyncio.InvalidStateError:  # gRPC's word for a stream that was over before
                await refusing(self.call.read())
                raise

    async def leave(self) -> None:
        """End the stream; once this returns, the replica gives this worker nothing more."""
        await self.call.done_writing()
        while await refusing(self.call.read()) is not grpc.aio.EOF:
            pass


async def refusing(call: Any) -> Any:
    """Await a call; a status becomes the Refusal that it carries."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise refusal_from_rpc_error(error) from None


async def refusal_of_call(call: Any) -> Refusal:
    """The refusal that a call must end with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return refusal_from_rpc_error(error)
    raise AssertionError("the call was not refused")


async def keep_beating(worker: FakeWorker) -> None:
    """Signs of life, until canceled. The one that is being sent is sent: gRPC cancels a call with a write of it."""
    while True:
        await asyncio.shield(worker.heartbeat())
        await asyncio.sleep(0.1)


def text(data: bytes) -> event_pb2.EventBody:
    """A piece of output."""
    return event_pb2.EventBody(text_delta=event_pb2.TextDelta(stream=event_pb2.TEXT_STREAM_STDOUT, data=data))


def finish(outcome: event_pb2.RunOutcome.ValueType = event_pb2.RUN_OUTCOME_SUCCEEDED) -> event_pb2.EventBody:
    """The end of a run."""
    return event_pb2.EventBody(run_finished=event_pb2.RunFinished(outcome=outcome))


def somebody() -> Somebody:
    """Somebody new, and the key that control signs with."""
    return Somebody(generate_key())


async def attached(runtime: Doors, who: Somebody, slots: int = 4) -> FakeWorker:
    """A worker with so many slots."""
    worker = FakeWorker(runtime, who, slots=slots)
    await worker.attach()
    return worker


async def started(runtime: Doors, who: Somebody, worker: FakeWorker, key: str = "k") -> str:
    """A run that the attached worker holds with epoch 1."""
    run = await runtime.create(who, key)
    assignment = (await worker.next("assignment")).assignment
    assert (assignment.run.run_id, assignment.lease_epoch) == (run.run_id, 1)
    return str(run.run_id)


async def cancel(runtime: Doors, who: Somebody, run_id: str) -> run_pb2.Run:
    """The run, once its cancel was asked for."""
    request = run_service_pb2.CancelRunRequest(run_id=run_id, reason="enough")
    run: run_pb2.Run = (await runtime.runs.CancelRun(request, metadata=who.as_person())).run
    return run


async def until_status(runtime: Doors, who: Somebody, run_id: str, status: run_pb2.RunStatus.ValueType) -> run_pb2.Run:
    """The run once it has the status."""
    async with asyncio.timeout(60):
        while (run := await runtime.run(who, run_id)).status != status:
            await asyncio.sleep(0.02)
    return run  # type: ignore[no-any-return]
