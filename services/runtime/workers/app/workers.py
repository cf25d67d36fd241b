"""What workers ask for: to attach, to stay attached, and to append to the runs that they hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import Quarantine
from oa_platform.system.ids import new_id
from oa_runlog.authority.commands import Append, LoseLease
from oa_runlog.workers import WorkerStatus, WorkerTrigger, next_worker_status
from services.runtime.agents.domain import check_agents
from services.runtime.log.app.log import Log
from services.runtime.log.domain.batch import Applied
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.lease_holders import LeaseHolders
from services.runtime.workers.app.ports import LeaseRecord, WorkerRecord, WorkerStore
from services.runtime.workers.domain.notices import AppendAnswer, HeldLease, Hello
from services.runtime.workers.limits import WorkerLimits

_log = structlog.get_logger(__name__)
_ATTACH_TRIES = 3


class Workers:
    """Carries out what workers ask for, over their streams and outside of them."""

    def __init__(
        self,
        log: Log,
        attached: AttachedWorkers,
        store: WorkerStore,
        limits: WorkerLimits,
        on_agents: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_agents` is called when a worker has stated which agents it has."""
        self._log = log
        self._attached = attached
        self._store = store
        self.limits = limits
        self._on_agents = on_agents
        self.lease_holders = LeaseHolders(store)
        self.broken = Quarantine("leases", "run_id", limits.quarantine)
        """Runs that can't be taken from workers that have ended."""
        self._checking_agents = asyncio.Lock()
        self._letting_go: set[asyncio.Task[None]] = set()

    async def attach(self, principal: Principal, hello: Hello) -> Attachment:
        """Attach the worker. Raises Refusal not_found, owner_mismatch, unavailable, invalid_value for agents."""
        await self._check_agents(hello)
        worker, attachment_id = await self._register(principal, hello)
        self._on_agents()
        attachment = Attachment(
            worker, attachment_id, time.monotonic(), self.limits.pending_appends, self.limits.pending_notices
        )
        self._attached.add(attachment)
        try:
            leases = await self._store.leases_of(worker.worker_id)
            await self._attached.restore(attachment, leases, hello.held)
        except BaseException:
            self.detach(attachment)
            raise
        _log.info("worker_attached", worker_id=worker.worker_id, org_id=worker.org_id, adapters=worker.adapters)
        self._attached.on_worker_free()
        return attachment

    async def _check_agents(self, hello: Hello) -> None:
        """Check the agents. Their schemas may be megabytes, so a thread reads them: one worker's at a time, because
        threads take turns with the event loop."""
        if not hello.agents:
            return
        try:
            async with self._checking_agents:
                await asyncio.to_thread(check_agents, hello.agents, hello.adapters)
        except Refusal as refusal:
            raise refusal.under("attach") from None

    async def _register(self, principal: Principal, hello: Hello) -> tuple[WorkerRecord, str]:
        worker = WorkerRecord(
            worker_id=hello.worker_id or new_id("wrk"),
            service_account_id=principal.subject,
            org_id=principal.org_id,
            name=hello.name,
            adapters=hello.adapters,
            max_concurrent_runs=hello.max_concurrent_runs,
            status=WorkerStatus.STARTING,
            agents=hello.agents,
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

    def detach(self, attachment: Attachment) -> None:
        """Remove a stream that is gone. Its worker may come back before it counts as lost."""
        self._attached.remove(attachment)
        attachment.end()

    def heartbeat(self, attachment: Attachment, held: Sequence[HeldLease]) -> None:
        """Note a sign of life. The next look stores it, so an unreachable database is no error for the worker."""
        attachment.status = next_worker_status(attachment.status, WorkerTrigger.HEARTBEAT) or attachment.status
        attachment.heard_at = time.monotonic()
        attachment.is_heard = True
        self._attached.tell_lost(attachment, held)
        self._attached.tell_again(attachment)
        self._attached.on_worker_free()

    def set_capacity(self, attachment: Attachment, max_held_runs: int) -> None:
        """Set how many runs it may hold from now on. It keeps the runs that it holds beyond that number."""
        attachment.capacity = max_held_runs
        self._attached.on_worker_free()

    async def drain(self, attachment: Attachment) -> None:
        """Let the worker get no new runs."""
        await self._move(attachment, WorkerTrigger.DRAIN)

    async def goodbye(self, attachment: Attachment) -> None:
        """End the worker: its leases are given up at once."""
        await self._move(attachment, WorkerTrigger.GOODBYE)
        await self.give_up(await self._store.leases_of(attachment.worker.worker_id))

    def revoked(self, attachment: Attachment, refusal: Refusal) -> None:
        """End a stream whose token was revoked; the runs that its worker holds go to others at once."""
        _log.info("worker_revoked", worker_id=attachment.worker.worker_id, org_id=attachment.worker.org_id)
        self._attached.remove(attachment)
        attachment.cut(refusal)
        task = asyncio.create_task(self._let_go(attachment))
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    async def _let_go(self, attachment: Attachment) -> None:
        try:
            await self.goodbye(attachment)
        except Exception as error:  # noqa: BLE001 - the watchdog gives them up, because the worker can't attach again
            if not isinstance(error, Refusal) or error.reason != "worker_lost":
                # With that reason, the process that has ended the worker gives up its runs.
                note_survived(_log, "runs_not_given_up", error, worker_id=attachment.worker.worker_id)

    async def end_account(self, service_account_id: str) -> None:
        """End the workers of an account that has ended, attached or not; the runs that they hold go to others at once.

        Any replica may do this, any number of times. Raises Refusal unavailable.
        """
        for worker_id in await self._store.stop_workers_of(service_account_id):
            _log.info("worker_stopped", worker_id=worker_id, service_account_id=service_account_id)
            await self.give_up(await self._store.leases_of(worker_id))

    async def _move(self, attachment: Attachment, what: WorkerTrigger) -> None:
        status = next_worker_status(attachment.status, what)
        moved = status is not None and await self._store.move_worker(
            attachment.worker.worker_id, attachment.attachment_id, status
        )
        if status is None or not moved:
            raise Refusal("worker_lost", "this worker was declared lost, or another stream speaks for it; attach again")
        attachment.status = status
        attachment.heard_at = time.monotonic()

    async def append(self, attachment: Attachment, request_id: int, command: Append) -> None:
        """Queue an append by the attached worker. The appends of a run are answered in order, over the stream."""
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
        """Append outside of a stream, for the service account whose worker holds the run. Raises Refusal."""
        holder = await self.lease_holders.of(command.run_id, command.lease_epoch)
        worker_id = holder.worker_id if holder.account_id == principal.subject else ""
        return await self._log.do(replace(command, worker_id=worker_id))

    async def give_up(self, leases: Sequence[LeaseRecord]) -> None:
        """End leases whose holders are gone. Any replica may do this, any number of times. Raises Refusal unavailable.

        A run whose lease can't be ended because of a defect holds up no other; the watchdog tries it again later.
        """
        commands = [LoseLease(lease.run_id, lease.worker_id, lease.lease_epoch) for lease in leases]
        (await self.broken.attempt_each({one.run_id: partial(self._log.do, one) for one in commands})).check()
