"""The workers attached to this replica: attaching, signs of life, appends, and what they must be told.

What happens to a run may be decided on any replica; the one that has the worker's stream learns of it from the tail.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_runlog import wire
from oa_runlog.commands import Append, LoseLease
from oa_runlog.events import EventType, ExecutorLost, RunCancelRequested, RunEvent, RunFinished, RunStarted
from oa_runlog.state import RunState, RunStatus, WorkerStatus
from oa_runlog.transitions import WorkerTrigger, next_worker_status
from services.runtime.app import metrics
from services.runtime.app.attachment import (
    AppendAnswer,
    Assignment,
    Attachment,
    CancelNotice,
    DrainingNotice,
    HeldLease,
    Hello,
    Lease,
    LeaseLostNotice,
)
from services.runtime.app.limits import WorkerLimits
from services.runtime.app.log import Log
from services.runtime.app.ports import LeaseRecord, LogReader, WorkerRecord, WorkerStore
from services.runtime.domain.batch import Applied, LogRecord

_log = structlog.get_logger(__name__)
_MOVING = frozenset(
    {EventType.RUN_STARTED, EventType.RUN_CANCEL_REQUESTED, EventType.RUN_FINISHED, EventType.EXECUTOR_LOST}
)
_QUEUEING = frozenset({EventType.RUN_CREATED, EventType.RUN_FINISHED, EventType.EXECUTOR_LOST})
_OF_INTEREST = _MOVING | _QUEUEING
_ATTACH_TRIES = 3
_REMEMBERED_LEASE_HOLDERS = 10_000


class Workers:
    """The worker side of this replica. It is a listener of the tail."""

    def __init__(
        self, log: Log, reader: LogReader, store: WorkerStore, limits: WorkerLimits, cancel_deadline_ms: int
    ) -> None:
        self._log = log
        self._reader = reader
        self._store = store
        self.limits = limits
        self._cancel_deadline_ms = cancel_deadline_ms
        self._pauses_ms = limits.pauses_ms()
        self.attached: dict[str, Attachment] = {}
        self._holders: dict[str, Attachment] = {}
        """Run -> the attached worker that holds it."""
        self._lease_holders: dict[tuple[str, int], tuple[str, str]] = {}
        """Run and lease epoch -> worker and service account that got the lease. That never changes in one epoch of the
        log, so it may be kept as long."""
        self._telling: set[asyncio.Task[None]] = set()
        self.on_work_available: Callable[[], None] = lambda: None
        """Called when there may be a run for a worker, or a worker for a run."""

    def _demand(self) -> None:
        self.on_work_available()

    def forget(self) -> None:
        """The log has another past."""
        self._lease_holders.clear()

    # ------------------------------------------------------------------------------------------------- attach, detach

    async def attach(self, principal: Principal, hello: Hello) -> Attachment:
        """A stream for the worker. Raises Refusal not_found, owner_mismatch, worker_lost."""
        worker, attachment_id = await self._register(principal, hello)
        attachment = Attachment(worker, attachment_id, time.monotonic(), self.limits.pending_appends)
        displaced = self.attached.get(worker.worker_id)
        if displaced is not None:
            self._forget(displaced)
            displaced.end(Refusal("worker_lost", "a newer stream speaks for this worker"))
        self.attached[worker.worker_id] = attachment
        metrics.WORKERS_ATTACHED.set(len(self.attached))
        try:
            await self._restore_leases(attachment, hello.held)
        except BaseException:
            self.detach(attachment)
            raise
        _log.info("worker_attached", worker_id=worker.worker_id, org_id=worker.org_id, adapters=worker.adapters)
        self.on_work_available()
        return attachment

    async def _register(self, principal: Principal, hello: Hello) -> tuple[WorkerRecord, str]:
        worker = WorkerRecord(
            worker_id=hello.worker_id or new_id("wrk"),
            service_account_id=principal.subject,
            org_id=principal.org_id,
            name=hello.name,
            adapters=hello.adapters,
            max_concurrent_runs=hello.max_concurrent_runs,
            status=WorkerStatus.STARTING,
        )
        attachment_id = new_id("att")
        if not hello.worker_id:
            await self._store.add_worker(worker, attachment_id)
            return worker, attachment_id
        for _ in range(_ATTACH_TRIES):
            before = await self._known(principal, hello.worker_id)
            if before.status in (WorkerStatus.LOST, WorkerStatus.STOPPED):
                await self.give_up(await self._store.leases_of(worker.worker_id))
            if await self._store.reattach_worker(worker, before.status, attachment_id):
                return worker, attachment_id
        raise Refusal("unavailable", "the worker's status changes too fast; attach again", retry_after_ms=100)

    async def _known(self, principal: Principal, worker_id: str) -> WorkerRecord:
        worker = await self._store.worker(worker_id)
        if worker is None or worker.org_id != principal.org_id:
            raise Refusal("not_found", "there is no such worker; attach without an id", field="attach.worker_id")
        if worker.service_account_id != principal.subject:
            text = "the worker belongs to another service account; attach without an id"
            raise Refusal("owner_mismatch", text, field="attach.worker_id")
        return worker

    async def _restore_leases(self, attachment: Attachment, held: Sequence[HeldLease]) -> None:
        """After a reconnect: what it holds goes on, what it lost it is told, what it never got it gets."""
        leases = await self._store.leases_of(attachment.worker.worker_id)
        believed = {(lease.run_id, lease.lease_epoch) for lease in held}
        for lease in leases:
            known = (lease.run_id, lease.lease_epoch) in believed
            self._hold(attachment, lease.run_id, lease.lease_epoch).told = known
        self._tell_lost(attachment, held)
        for lease in leases:
            run = await self._reader.run(lease.run_id)
            if run is None or not run.state.is_leased:
                continue
            if (lease.run_id, lease.lease_epoch) not in believed:
                attachment.tell(Assignment(run, lease.lease_epoch), self._cancel_of(run.state))
            elif cancel := self._cancel_of(run.state):
                attachment.cancel(cancel)

    def _cancel_of(self, state: RunState) -> CancelNotice | None:
        if state.status is not RunStatus.CANCELING:
            return None
        return CancelNotice(state.run_id, state.lease_epoch, state.cancel_reason, self._cancel_deadline_ms)

    def _tell_lost(self, attachment: Attachment, held: Sequence[HeldLease]) -> None:
        for believed in held:
            lease = attachment.leases.get(believed.run_id)
            if lease is None or lease.epoch != believed.lease_epoch:
                attachment.say(LeaseLostNotice(believed.run_id, believed.lease_epoch))

    def detach(self, attachment: Attachment) -> None:
        """The stream is gone. The worker is not: it may come back before it counts as lost."""
        self._forget(attachment)
        attachment.end()

    def _forget(self, attachment: Attachment) -> None:
        for run_id in list(attachment.leases):
            self._release(attachment, run_id)
        if self.attached.get(attachment.worker.worker_id) is attachment:
            del self.attached[attachment.worker.worker_id]
        metrics.WORKERS_ATTACHED.set(len(self.attached))

    def drain_all(self) -> None:
        """This replica goes away: ask every worker to attach elsewhere."""
        for attachment in list(self.attached.values()):
            attachment.say(DrainingNotice(self.limits.drain_reconnect_ms))

    # ------------------------------------------------------------------------------------------------- what it says

    async def heartbeat(self, attachment: Attachment, held: Sequence[HeldLease]) -> None:
        """A sign of life. Raises Refusal worker_lost."""
        await self._move(attachment, WorkerTrigger.HEARTBEAT)
        self._tell_lost(attachment, held)
        for run_id, lease in attachment.leases.items():
            if not lease.told:
                self._start_telling(attachment, run_id, lease.epoch)
        self.on_work_available()

    async def drain(self, attachment: Attachment) -> None:
        """It takes nothing new."""
        await self._move(attachment, WorkerTrigger.DRAIN)

    async def goodbye(self, attachment: Attachment) -> None:
        """It ends: its leases are given up at once."""
        await self._move(attachment, WorkerTrigger.GOODBYE)
        await self.give_up(await self._store.leases_of(attachment.worker.worker_id))

    async def _move(self, attachment: Attachment, what: WorkerTrigger) -> None:
        status = next_worker_status(attachment.status, what)
        moved = status is not None and await self._store.move_worker(
            attachment.worker.worker_id, attachment.attachment_id, status
        )
        if status is None or not moved:
            raise Refusal("worker_lost", "this worker was declared lost, or another stream speaks for it: attach again")
        attachment.status = status
        attachment.heard_at = time.monotonic()

    async def append(self, attachment: Attachment, request_id: int, command: Append) -> None:
        """Queue an append by the attached worker; its answer is said to it, in the order of the appends of its run."""
        await attachment.acquire_append()
        place = attachment.place_of(command)
        try:
            answer = self._log.submit(replace(command, worker_id=attachment.worker.worker_id), place)
        except Refusal as refusal:
            if place is not None:
                place.pipeline.answered(place, refusal)
            attachment.release_append()
            attachment.say_in_turn(AppendAnswer(request_id, command.run_id, refusal))
            return

        def answered(done: asyncio.Future[Applied]) -> None:
            attachment.release_append()
            error = done.exception()
            what = error if isinstance(error, Refusal) else done.result()
            attachment.say(AppendAnswer(request_id, command.run_id, what))
            if attachment.under_way.get(command.run_id) is done:
                del attachment.under_way[command.run_id]

        attachment.under_way[command.run_id] = answer
        answer.add_done_callback(answered)

    async def append_once(self, principal: Principal, command: Append) -> Applied:
        """An append outside of a stream, by the service account whose worker holds the run. Raises Refusal."""
        lease = command.run_id, command.lease_epoch
        if lease not in self._lease_holders:
            lease_holder = await self._store.lease_holder(*lease)
            if lease_holder is not None:
                self._remember_lease_holder(lease, lease_holder)
        worker_id, account_id = self._lease_holders.get(lease, ("", ""))
        return await self._log.do(replace(command, worker_id=worker_id if account_id == principal.subject else ""))

    def _remember_lease_holder(self, lease: tuple[str, int], lease_holder: tuple[str, str]) -> None:
        while len(self._lease_holders) >= _REMEMBERED_LEASE_HOLDERS:
            del self._lease_holders[next(iter(self._lease_holders))]
        self._lease_holders[lease] = lease_holder

    async def give_up(self, leases: Sequence[LeaseRecord]) -> None:
        """End leases whose holders are gone. Any replica may do it, any number of times."""
        commands = [LoseLease(lease.run_id, lease.worker_id, lease.lease_epoch) for lease in leases]
        await asyncio.gather(*(self._log.do(command) for command in commands))

    def end_lost(self, lost: Mapping[str, str]) -> None:
        """End the streams of workers that are lost: worker -> the attachment that it had."""
        for worker_id, attachment_id in lost.items():
            attachment = self.attached.get(worker_id)
            if attachment is not None and attachment.attachment_id == attachment_id:
                self._forget(attachment)
                attachment.end(Refusal("worker_lost", "this worker was declared lost: attach again"))

    # ------------------------------------------------------------------------------------------------- what it is told

    def on_records(self, records: Sequence[LogRecord]) -> None:
        """New records of the log."""
        kinds = {record.type for record in records}
        if not self.attached or kinds.isdisjoint(_OF_INTEREST):
            return
        for record in records:
            if record.type in _MOVING:
                self._on_moved(wire.decode_event(record.data))
        if not kinds.isdisjoint(_QUEUEING):
            self.on_work_available()

    def _on_moved(self, event: RunEvent) -> None:
        if isinstance(event.body, RunStarted):
            attachment = self.attached.get(event.body.worker_id)
            if attachment is not None:
                self._hold(attachment, event.run_id, event.body.lease_epoch)
                self._start_telling(attachment, event.run_id, event.body.lease_epoch)
            return
        if isinstance(event.body, ExecutorLost) and event.body.requeued:
            pause_ms = self._pauses_ms[min(event.body.attempt, len(self._pauses_ms)) - 1]
            asyncio.get_running_loop().call_later(pause_ms / 1000, self._demand)
        holder = self._holders.get(event.run_id)
        if holder is not None:
            self._on_held(holder, event)

    def _start_telling(self, attachment: Attachment, run_id: str, epoch: int) -> None:
        task = asyncio.create_task(self._tell(attachment, run_id, epoch))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, attachment: Attachment, run_id: str, epoch: int) -> None:
        """Tell a worker the run that it has got. Should the read fail, the next heartbeat tries again."""
        try:
            run = await self._reader.run(run_id)
        except Refusal as refusal:
            _log.warning("assignment_not_told", run_id=run_id, reason=refusal.reason)
            return
        if run is not None and run.state.is_leased and run.state.lease_epoch == epoch:
            attachment.tell(Assignment(run, epoch), self._cancel_of(run.state))

    def _hold(self, attachment: Attachment, run_id: str, epoch: int) -> Lease:
        self._holders[run_id] = attachment
        metrics.LEASES.set(len(self._holders))
        return attachment.hold(run_id, epoch)

    def _release(self, attachment: Attachment, run_id: str) -> None:
        attachment.leases.pop(run_id, None)
        if self._holders.get(run_id) is attachment:
            del self._holders[run_id]
        metrics.LEASES.set(len(self._holders))

    def _on_held(self, attachment: Attachment, event: RunEvent) -> None:
        epoch = attachment.leases[event.run_id].epoch
        match event.body:
            case RunCancelRequested(_, reason):
                attachment.cancel(CancelNotice(event.run_id, epoch, reason, self._cancel_deadline_ms))
            case ExecutorLost(lease_epoch=lost) if lost == epoch:
                self._release(attachment, event.run_id)
                attachment.say(LeaseLostNotice(event.run_id, epoch))
            case RunFinished():
                self._release(attachment, event.run_id)
                if event.lease_epoch != epoch:  # the authority ended it
                    attachment.say(LeaseLostNotice(event.run_id, epoch))
