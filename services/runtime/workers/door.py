"""WorkerService: one stream for each worker, and appends outside of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_khala.topics import run_events
from oa_platform.auth.identity import WorkerCaller, current_caller, current_principal
from oa_platform.auth.revocations import Revocations
from oa_platform.rpc.refusals import note_refusal
from oa_platform.tasks.ending import cancel_and_wait
from oa_runlog import wire
from oa_runlog.authority.commands import Append, EncodedBody
from oa_runlog.authority.limits import RunLimits
from oa_wire.batches import batches
from oa_wire.rules import check_rules
from openagents.runtime.v1 import run_pb2
from openagents.runtime.v1 import worker_service_pb2 as pb
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceServicer
from services.runtime.agents.domain import Agent
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.records import RunRecord
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.held_runs import HeldRuns
from services.runtime.workers.app.streams import OrgStreams
from services.runtime.workers.app.workers import Workers
from services.runtime.workers.domain.notices import (
    AppendAnswer,
    Assignment,
    CancelNotice,
    DrainingNotice,
    HeldLease,
    Hello,
    LeaseLostNotice,
    Notice,
    RunNews,
)

Authenticate = Callable[[str], Awaitable[WorkerCaller]]
"""Returns the caller that a worker's token identifies; raises Refusal."""
_ATTACH = "/openagents.runtime.v1.WorkerService/Attach"


class WorkerApi(WorkerServiceServicer):
    """How workers take runs and append to their logs."""

    def __init__(
        self,
        workers: Workers,
        held_runs: HeldRuns,
        run_limits: RunLimits,
        authenticate: Authenticate,
        revocations: Revocations,
        now: Callable[[], datetime],
    ) -> None:
        """`authenticate` identifies the caller from the token of a `renew`. `now` tells the time, in UTC."""
        self._now = now
        self._revocations = revocations
        self._workers = workers
        self._authenticate = authenticate
        self._held_runs = held_runs
        self._run_limits = run_limits
        self._streams = OrgStreams(workers.limits.max_streams_of_org)

    async def AppendEvents(self, request: pb.AppendEventsRequest, context: Any) -> pb.AppendEventsResponse:
        """Carry out one append outside of a stream."""
        principal = current_principal()
        applied = await self._workers.append_once(principal, _append(request, principal))
        return _appended(request.request_id, applied)

    async def ReadHeldRun(self, request: pb.ReadHeldRunRequest, context: Any) -> pb.ReadHeldRunResponse:
        """Return a page of a run's log to the run's holder."""
        lease = HeldLease(request.run_id, request.lease_epoch)
        read = self._held_runs.newest if request.newest_only else self._held_runs.page
        events = await read(current_principal(), lease, request.after_seq, request.types)
        return pb.ReadHeldRunResponse(events=events)

    async def ExpireRequest(self, request: pb.ExpireRequestRequest, context: Any) -> pb.ExpireRequestResponse:
        """Expire a request whose time is over."""
        lease = HeldLease(request.run_id, request.lease_epoch)
        seq = await self._held_runs.expire_request(current_principal(), lease, request.request_id)
        return pb.ExpireRequestResponse(seq=seq)

    async def StartChild(self, request: pb.StartChildRequest, context: Any) -> pb.StartChildResponse:
        """Start a child of a run."""
        lease = HeldLease(request.run_id, request.lease_epoch)
        spec = wire.asked_spec_from_wire(request.spec, path="spec.")
        run_id, existed = await self._held_runs.start_child(
            current_principal(),
            lease,
            request.child_id,
            spec,
            cancel_with_parent=request.cancel_with_parent,
            has_branches=request.has_branches,
        )
        return pb.StartChildResponse(child_run_id=run_id, already_started=existed)

    async def Attach(self, requests: AsyncIterator[pb.AttachRequest], context: Any) -> AsyncIterator[pb.AttachResponse]:
        """Serve a worker's stream, from its hello to its end."""
        caller = current_caller()
        assert isinstance(caller, WorkerCaller)  # because the contract says so for this method
        with self._streams.room(caller.principal.org_id):
            principal, first = caller.principal, await self._first(requests)
            attachment = await self._workers.attach(principal, _hello(first.attach))
            attachment.lasts(caller.holds_for_s)
            unwatch = self._revocations.watch(caller.holder, lambda why: self._workers.revoked(attachment, why))
            reading = asyncio.create_task(self._read(requests, principal, attachment))
            ending = asyncio.create_task(self._cut_off(attachment, asyncio.current_task()))
            try:
                yield self._attached(attachment)
                while notices := await attachment.notices():
                    for responses in batches(_noted(notice) for notice in notices):
                        if len(responses) > 1 and first.attach.takes_batches:
                            yield pb.AttachResponse(batch=pb.AttachResponseBatch(responses=responses))
                        else:
                            for response in responses:
                                yield response
                if attachment.ended is not None:
                    raise attachment.ended
            finally:
                unwatch()
                self._workers.detach(attachment)
                await cancel_and_wait(reading, ending)

    async def _cut_off(self, attachment: Attachment, call: asyncio.Task[Any] | None) -> None:
        """End the call of a stream that is over and whose worker takes nothing more, not even why."""
        await attachment.over.wait()
        await asyncio.sleep(self._workers.limits.end_ms / 1000)
        if call is not None:
            call.cancel()

    async def _first(self, requests: AsyncIterator[pb.AttachRequest]) -> pb.AttachRequest:
        """The message that introduces the worker. Raises Refusal `hello_timeout`, `attach_out_of_order`, and as the
        rules of the message do."""
        try:
            async with asyncio.timeout(self._workers.limits.hello_ms / 1000):
                first = await anext(requests, None)
        except TimeoutError:
            message = "the stream did not begin with `attach` in time; open another one, and send it at once"
            raise Refusal("hello_timeout", message, field="attach") from None
        if first is None or first.WhichOneof("message") != "attach":
            raise _out_of_order("the first message of a worker's stream is `attach`; open another stream with it")
        check_rules(first)
        return first

    async def _read(
        self, requests: AsyncIterator[pb.AttachRequest], principal: Principal, attachment: Attachment
    ) -> None:
        """Carry out the worker's messages. Any error ends the stream, and is answered as in any call."""
        try:
            async for request in requests:
                if attachment.is_over:
                    return  # its further messages no longer count
                await self._handle(request, principal, attachment)
            attachment.end()
        except Exception as error:  # noqa: BLE001 - raised by `Attach`, which is being answered
            attachment.end(error)

    async def _handle(self, request: pb.AttachRequest, principal: Principal, attachment: Attachment) -> None:
        kind = request.WhichOneof("message")
        await attachment.room_for_notices()
        if kind == "append":
            await self._append(request.append, principal, attachment)
            return
        if kind == "batch":
            await self._handle_all(request.batch.requests, principal, attachment)
            return
        check_rules(request)
        match kind:
            case "heartbeat":
                self._workers.heartbeat(attachment, _held(request.heartbeat.held_leases))
            case "drain":
                await self._workers.drain(attachment)
            case "goodbye":
                await self._workers.goodbye(attachment)
            case "capacity":
                self._workers.set_capacity(attachment, request.capacity.max_held_runs)
            case "renew":
                await self._renew(request.renew.token, principal, attachment)
            case "attach":
                raise _out_of_order("a worker's stream has one `attach`; open another stream to attach again")
            case _:
                raise Refusal("missing_payload", "the message says nothing; set one of its kinds", field="message")

    async def _handle_all(
        self, requests: Iterable[pb.AttachRequest], principal: Principal, attachment: Attachment
    ) -> None:
        for index, request in enumerate(requests):
            try:
                if request.HasField("batch"):
                    raise _out_of_order("a batch holds no batch; send its messages themselves")
                await self._handle(request, principal, attachment)
            except Refusal as refusal:
                raise refusal.under(f"batch.requests[{index}]") from None

    async def _renew(self, token: str, principal: Principal, attachment: Attachment) -> None:
        """Continue the stream under another token of its owner."""
        caller = await self._authenticate(token)
        if (caller.principal.subject, caller.principal.org_id) != (principal.subject, principal.org_id):
            text = "the token belongs to another service account than the stream; attach with it"
            raise Refusal("owner_mismatch", text, field="renew.token")
        attachment.lasts(caller.holds_for_s)

    async def _append(self, request: pb.AppendEventsRequest, principal: Principal, attachment: Attachment) -> None:
        """Submit an append. One that can't be read is refused like any other, and the stream continues."""
        try:
            check_rules(request)
            command = _append(request, principal)
        except Refusal as refusal:
            attachment.say_in_turn(AppendAnswer(request.request_id, request.run_id, refusal))
            return
        await self._workers.append(attachment, request.request_id, command)

    def _attached(self, attachment: Attachment) -> pb.AttachResponse:
        limits = self._workers.limits
        server_time = Timestamp()
        server_time.FromDatetime(self._now())
        attached = pb.WorkerAttached(
            worker_id=attachment.worker.worker_id,
            heartbeat_interval_ms=limits.heartbeat_interval_ms,
            lost_after_ms=limits.lost_after_ms,
            max_event_bytes=self._run_limits.max_event_bytes,
            max_events_per_second=self._run_limits.events_per_second,
            takes_batches=True,
            takes_renewals=True,
            takes_capacity=True,
            server_time=server_time,
        )
        return pb.AttachResponse(attached=attached)


def _out_of_order(message: str) -> Refusal:
    return Refusal("attach_out_of_order", message, field="attach")


def _hello(message: pb.WorkerHello) -> Hello:
    return Hello(
        message.worker_id,
        message.name,
        tuple(message.adapters),
        message.max_concurrent_runs,
        _held(message.held_leases),
        tuple(_agent(agent) for agent in message.agents),
    )


def _agent(message: pb.Agent) -> Agent:
    return Agent(message.name, message.input_schema_json, message.output_schema_json, message.description)


def _held(leases: Iterable[pb.HeldLease]) -> list[HeldLease]:
    return [HeldLease(lease.run_id, lease.lease_epoch) for lease in leases]


def _append(request: pb.AppendEventsRequest, principal: Principal) -> Append:
    """The command in a request whose rules were checked; `Workers` adds the worker. Raises Refusal."""
    request.DiscardUnknownFields()
    expected_seq = request.expected_seq if request.HasField("expected_seq") else None
    return Append.made_of(
        request.run_id,
        principal.org_id,
        "",
        request.lease_epoch,
        request.idempotency_key,
        _events(request),
        expected_seq,
    )


def _events(request: pb.AppendEventsRequest) -> list[EncodedBody]:
    events: list[EncodedBody] = []
    try:
        for event in request.events:
            events.append(EncodedBody.received(event))  # noqa: PERF401 - how far it came is the field of a refusal
    except Refusal as refusal:
        raise refusal.under(f"events[{len(events)}]") from None
    return events


def _appended(request_id: int, applied: Applied) -> pb.AppendEventsResponse:
    return pb.AppendEventsResponse(
        request_id=request_id,
        run_id=applied.run_id,
        first_seq=applied.first_seq,
        last_seq=applied.last_seq,
        already_appended=applied.repeated,
    )


def _run(run: RunRecord) -> run_pb2.Run:
    return wire.run_to_wire(run.state, run.spec, run_events(run.state.run_id))


def _noted(notice: Notice) -> pb.AttachResponse:
    if isinstance(notice, AppendAnswer) and isinstance(notice.answer, Refusal):
        note_refusal(_ATTACH, notice.answer)
    return _notice(notice)


def _notice(notice: Notice) -> pb.AttachResponse:
    match notice:
        case AppendAnswer(request_id, run_id, Refusal() as refusal):
            refused = pb.AppendRefused(
                request_id=request_id,
                run_id=run_id,
                reason=refusal.reason,
                message=refusal.message,
                field=refusal.field,
                metadata=refusal.metadata,
                retry_after_ms=refusal.retry_hint_ms,
            )
            return pb.AttachResponse(append_refused=refused)
        case AppendAnswer(request_id, _, Applied() as applied):
            return pb.AttachResponse(appended=_appended(request_id, applied))
        case Assignment(run, epoch):
            return pb.AttachResponse(assignment=pb.RunAssignment(run=_run(run), lease_epoch=epoch))
        case CancelNotice(run_id, epoch, reason, deadline_ms):
            cancel = pb.CancelAssignment(run_id=run_id, lease_epoch=epoch, reason=reason, deadline_ms=deadline_ms)
            return pb.AttachResponse(cancel=cancel)
        case RunNews(run_id, epoch, seq):
            return pb.AttachResponse(news=pb.RunNews(run_id=run_id, lease_epoch=epoch, seq=seq))
        case LeaseLostNotice(run_id, epoch):
            return pb.AttachResponse(lease_lost=pb.LeaseLost(run_id=run_id, lease_epoch=epoch))
        case DrainingNotice(reconnect_after_ms):
            return pb.AttachResponse(draining=pb.AuthorityDraining(reconnect_after_ms=reconnect_after_ms))
        case _:
            raise AssertionError("a notice that has no message")
