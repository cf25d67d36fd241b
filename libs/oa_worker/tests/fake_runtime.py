"""An authority for tests: WorkerService on a real gRPC server, with a log in memory and faults on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from oa_runlog.fingerprint import text_sha256
from oa_testing.waiting import PATIENCE_S
from oa_wire.status import STATUS_METADATA_KEY, to_status
from oa_worker.sdk.transport.tokens import WorkerToken
from openagents.runtime.v1 import run_pb2, worker_service_pb2_grpc
from openagents.runtime.v1.event_pb2 import (
    ChildStarted,
    EventBody,
    InputReceived,
    RequestAnswered,
    RequestExpired,
    RunEvent,
    RunSpec,
)
from openagents.runtime.v1.worker_service_pb2 import (
    AppendEventsRequest,
    AppendEventsResponse,
    AppendRefused,
    AttachRequest,
    AttachResponse,
    AuthorityDraining,
    CancelAssignment,
    ExpireRequestRequest,
    ExpireRequestResponse,
    LeaseLost,
    ReadHeldRunRequest,
    ReadHeldRunResponse,
    RunAssignment,
    RunNews,
    StartChildRequest,
    StartChildResponse,
    WorkerAttached,
    WorkerHello,
)

Context = grpc.aio.ServicerContext[AttachRequest, AttachResponse]
RUN = "run_01JD8V0000000000000000000A"
OTHER_RUN = "run_01JD8V0000000000000000000B"
WORKER = "wrk_01JD8V0000000000000000000A"


@dataclass
class Stored:
    """One run's log: the events, and which keys are known (with their seqs)."""

    events: list[EventBody] = field(default_factory=list)
    keys: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)
    times: list[Timestamp] = field(default_factory=list)
    """When the first events were recorded, as far as a test says it."""
    lease_epoch: int = 1
    attempt: int = 1

    @property
    def text(self) -> bytes:
        """All text of the log."""
        return b"".join(event.text_delta.data for event in self.events)

    @property
    def finished(self) -> bool:
        """Whether the last event is the finish."""
        return bool(self.events) and self.events[-1].WhichOneof("kind") == "run_finished"


@dataclass
class Faults:
    """What goes wrong. Appends are counted over all streams, from 1."""

    drop_before: set[int] = field(default_factory=set)
    """The stream breaks before this append is stored: it is lost."""
    drop_after: set[int] = field(default_factory=set)
    """The stream breaks after this append was stored: its answer is lost."""
    answer_twice: bool = False
    refuse: dict[int, Refusal] = field(default_factory=dict)
    """This append is refused, once."""
    attach: list[Refusal] = field(default_factory=list)
    """The next attaches are refused."""
    read: list[Refusal] = field(default_factory=list)
    """The next reads of a run are refused, and other calls beside the stream."""
    bad_tokens: set[str] = field(default_factory=set)
    """Calls beside the stream are refused with these."""
    expires_when: asyncio.Event = field(default_factory=asyncio.Event)
    """An expired request is not looked at before this. Set, unless a test clears it."""
    append_delay_s: float = 0.0

    def __post_init__(self) -> None:
        self.expires_when.set()


class FakeRuntime(worker_service_pb2_grpc.WorkerServiceServicer):
    """Assigns `runs` to the first worker that attaches, and to whoever comes back with its id."""

    def __init__(
        self, runs: dict[str, RunSpec], faults: Faults | None = None, max_events_per_second: int = 240
    ) -> None:
        self.specs = runs
        self.logs = {run_id: Stored() for run_id in runs}
        self.faults = faults or Faults()
        self.hellos: list[WorkerHello] = []
        self.tokens: list[str] = []
        self.children: dict[str, StartChildRequest] = {}
        self.said: list[str] = []
        self.held: list[list[str]] = []
        self.appends = 0
        self.streams = 0
        self.half_closes = 0
        self.answers_half_closes = True
        self.max_events_per_second = max_events_per_second
        self.takes_renewals = False
        self.renewals: list[str] = []
        """Tokens that came over streams."""
        self.takes_capacity = True
        self.clock: Callable[[], datetime] | None = None
        """Its time, which it states when a worker attaches. None: it does not, as an older one."""
        self.capacities: list[int] = []
        self.max_event_bytes = 256 * 1024
        self.append_sizes: list[int] = []
        self.changed = asyncio.Condition()
        self._ends: Refusal | None = None
        self._outboxes: list[asyncio.Queue[AttachResponse | None]] = []
        self.address = ""

    @asynccontextmanager
    async def running(self, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[FakeRuntime]:
        """On loopback; with credentials its address says that it has TLS."""
        server = grpc.aio.server()
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(self, server)
        if credentials is None:
            self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        else:
            self.address = f"grpcs://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    async def until(self, holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait until `holds` does."""
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(holds)

    def tell(self, message: AttachResponse) -> None:
        """Send a message on the present stream."""
        self._outboxes[-1].put_nowait(message)

    def cancel(self, run_id: str, deadline_ms: int = 10_000) -> None:
        """Ask the worker to end a run."""
        self.tell(AttachResponse(cancel=CancelAssignment(run_id=run_id, lease_epoch=1, deadline_ms=deadline_ms)))

    def take_lease(self, run_id: str, *, say: bool = True) -> None:
        """Another worker has the run now."""
        self.logs[run_id].lease_epoch = 2
        if say:
            self.tell(AttachResponse(lease_lost=LeaseLost(run_id=run_id, lease_epoch=1)))

    def send_input(self, run_id: str, text: str, *, say: bool = True) -> None:
        """Somebody says something to a run."""
        events = self.logs[run_id].events
        events.append(EventBody(input_received=InputReceived(sent_by="usr_1", input_json=text)))
        if say:
            self.tell(AttachResponse(news=RunNews(run_id=run_id, lease_epoch=1, seq=len(events))))

    def answer(self, run_id: str, request_id: str, option: str = "", text: str = "", *, say: bool = True) -> None:
        """Somebody answers a request of a run."""
        events = self.logs[run_id].events
        said = RequestAnswered(request_id=request_id, option=option, text=text, answered_by="usr_1")
        events.append(EventBody(request_answered=said))
        if say:
            self.tell(AttachResponse(news=RunNews(run_id=run_id, lease_epoch=1, seq=len(events))))

    def write(self, run_id: str, event: EventBody) -> None:
        """The authority writes something to a run."""
        events = self.logs[run_id].events
        events.append(event)
        self.tell(AttachResponse(news=RunNews(run_id=run_id, lease_epoch=1, seq=len(events))))

    def refuse(self, refusal: Refusal) -> None:
        """End the present stream so."""
        self._ends = refusal
        self._outboxes[-1].put_nowait(None)

    def announce_drain(self) -> None:
        """This replica goes away."""
        self.tell(AttachResponse(draining=AuthorityDraining(reconnect_after_ms=20)))

    # ------------------------------------------------------------------------------------------------- the service

    async def AppendEvents(self, request: AppendEventsRequest, context: Context) -> AppendEventsResponse:
        """Not what a worker uses."""
        raise NotImplementedError

    async def ReadHeldRun(self, request: ReadHeldRunRequest, context: Context) -> ReadHeldRunResponse:
        """A page of at most two events."""
        log = self.logs[request.run_id]
        await _check(self.faults, context)
        if request.lease_epoch != log.lease_epoch:
            await _abort(context, Refusal("stale_epoch", "another worker has it"))
        numbered = [(seq, event) for seq, event in enumerate(log.events, start=1) if seq > request.after_seq]
        wanted = {name.replace(".", "_") for name in request.types}
        page = [one for one in numbered if not wanted or one[1].WhichOneof("kind") in wanted]
        page = page[-1:] if request.newest_only else page[:2]
        times = dict(enumerate(log.times, start=1))
        events = [RunEvent(run_id=request.run_id, seq=n, recorded_time=times.get(n), body=one) for n, one in page]
        return ReadHeldRunResponse(events=[event.SerializeToString() for event in events])

    async def ExpireRequest(self, request: ExpireRequestRequest, context: Context) -> ExpireRequestResponse:
        """Settles a request with its default, unless it is settled."""
        await _check(self.faults, context)
        await self.faults.expires_when.wait()
        events = self.logs[request.run_id].events
        opened = next(one.request_opened for one in events if one.request_opened.request_id == request.request_id)
        if not any(one.request_answered.request_id == request.request_id for one in events):
            expired = RequestExpired(request_id=request.request_id, option=opened.default_option)
            events.append(EventBody(request_expired=expired))
        return ExpireRequestResponse(seq=len(events))

    async def StartChild(self, request: StartChildRequest, context: Context) -> StartChildResponse:
        """Takes note, and gives ids in order."""
        await _check(self.faults, context)
        existed = request.child_id in self.children
        self.children[request.child_id] = request
        number = list(self.children).index(request.child_id)
        run_id = f"run_{number:026d}"
        if not existed:
            spec = request.spec
            child = ChildStarted(
                child_id=request.child_id,
                run_id=run_id,
                adapter=spec.adapter,
                input_sha256=text_sha256(spec.agent.input_json),
                has_branches=request.has_branches,
            )
            self.logs[request.run_id].events.append(EventBody(child_started=child))
        return StartChildResponse(child_run_id=run_id, already_started=existed)

    async def Attach(
        self, request_iterator: AsyncIterator[AttachRequest], context: Context
    ) -> AsyncIterator[AttachResponse]:
        hello = (await anext(aiter(request_iterator))).attach
        self.tokens.append(str(dict(context.invocation_metadata() or ())["authorization"]))
        if self.faults.attach:
            await _abort(context, self.faults.attach.pop(0))
        self.hellos.append(hello)
        self.streams += 1
        outbox: asyncio.Queue[AttachResponse | None] = asyncio.Queue()
        self._outboxes.append(outbox)
        attached = WorkerAttached(
            worker_id=WORKER,
            heartbeat_interval_ms=50,
            lost_after_ms=30_000,
            max_event_bytes=self.max_event_bytes,
            max_events_per_second=self.max_events_per_second,
            takes_renewals=self.takes_renewals,
            takes_capacity=self.takes_capacity,
        )
        if self.clock is not None:
            attached.server_time.FromDatetime(self.clock())
        yield AttachResponse(attached=attached)
        self._assign(hello, outbox)
        reader = asyncio.create_task(self._read(request_iterator, outbox))
        try:
            while (message := await outbox.get()) is not None:
                yield message
        finally:
            reader.cancel()
        if self._ends is not None:
            refusal, self._ends = self._ends, None
            await _abort(context, refusal)
        if not reader.done() or reader.cancelled():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream broke")

    def _assign(self, hello: WorkerHello, outbox: asyncio.Queue[AttachResponse | None]) -> None:
        held = {lease.run_id for lease in hello.held_leases}
        for run_id, spec in self.specs.items():
            log = self.logs[run_id]
            if run_id not in held and not log.finished and log.lease_epoch == 1:
                run = run_pb2.Run(run_id=run_id, spec=spec, attempt=log.attempt)
                outbox.put_nowait(AttachResponse(assignment=RunAssignment(run=run, lease_epoch=1)))

    async def _read(self, requests: AsyncIterator[AttachRequest], outbox: asyncio.Queue[AttachResponse | None]) -> None:
        async for request in requests:
            kind = request.WhichOneof("message") or ""
            self.said.append(kind)
            if kind == "append":
                if not await self._append(request.append, outbox):
                    outbox.put_nowait(None)
                    return await asyncio.sleep(3600)
            elif kind == "renew":
                self.renewals.append(request.renew.token)
            elif kind == "capacity":
                self.capacities.append(request.capacity.max_held_runs)
            elif kind == "heartbeat":
                self.held.append([lease.run_id for lease in request.heartbeat.held_leases])
            async with self.changed:
                self.changed.notify_all()
        self.half_closes += 1
        async with self.changed:
            self.changed.notify_all()
        if self.answers_half_closes:
            outbox.put_nowait(None)
        return None

    async def _append(self, request: AppendEventsRequest, outbox: asyncio.Queue[AttachResponse | None]) -> bool:
        """Store and answer; False when the stream breaks instead."""
        self.appends += 1
        number = self.appends
        self.append_sizes.append(len(request.events))
        if self.faults.append_delay_s:
            await asyncio.sleep(self.faults.append_delay_s)
        if number in self.faults.drop_before:
            return False
        answer = self._answer(request, number)
        if number in self.faults.drop_after:
            return False
        for _ in range(2 if self.faults.answer_twice else 1):
            outbox.put_nowait(answer)
        return True

    def _answer(self, request: AppendEventsRequest, number: int) -> AttachResponse:
        log = self.logs[request.run_id]
        refusal = self.faults.refuse.pop(number, None)
        if request.lease_epoch != log.lease_epoch:
            refusal = Refusal("stale_epoch", "another worker has it")
        if refusal is not None:
            return AttachResponse(append_refused=_refused(request, refusal))
        content = b"".join(event.SerializeToString(deterministic=True) for event in request.events)
        known = log.keys.get(request.idempotency_key)
        if known is not None and known[2] != content:
            return AttachResponse(append_refused=_refused(request, Refusal("idempotency_conflict", "other content")))
        if known is None:
            first = len(log.events) + 1
            log.events.extend(request.events)
            known = log.keys[request.idempotency_key] = (first, len(log.events), content)
        answer = AppendEventsResponse(
            request_id=request.request_id, run_id=request.run_id, first_seq=known[0], last_seq=known[1]
        )
        return AttachResponse(appended=answer)


def _refused(request: AppendEventsRequest, refusal: Refusal) -> AppendRefused:
    return AppendRefused(
        request_id=request.request_id,
        run_id=request.run_id,
        reason=refusal.reason,
        message=refusal.message,
        retry_after_ms=refusal.retry_after_ms,
    )


async def _check(faults: Faults, context: Context) -> None:
    """Refuse a call beside the stream, if it is to be refused."""
    if faults.read:
        await _abort(context, faults.read.pop(0))
    token = str(dict(context.invocation_metadata() or ())["authorization"]).removeprefix("Bearer ")
    if token in faults.bad_tokens:
        await _abort(context, Refusal("invalid_token", "its key was stolen"))


async def _abort(context: Context, refusal: Refusal) -> None:
    context.set_trailing_metadata(((STATUS_METADATA_KEY, to_status(refusal).SerializeToString()),))
    await context.abort(getattr(grpc.StatusCode, refusal.info.grpc_code), refusal.message)


@dataclass
class FakeTokens:
    """Tokens for a fake runtime; `failures` are raised first."""

    runtime: FakeRuntime
    lifetime_s: float = 3600.0
    failures: list[Refusal] = field(default_factory=list)
    given: int = 0
    elsewhere: bool = False
    """The authority has another address now, which leads to the same one."""

    async def get(self) -> WorkerToken:
        if self.failures:
            raise self.failures.pop(0)
        self.given += 1
        address = self.runtime.address
        if self.elsewhere:
            address = address.replace("127.0.0.1", "localhost")
        return WorkerToken(f"token-{self.given}", self.lifetime_s, address)
