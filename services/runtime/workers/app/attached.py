"""The workers attached to this replica: the runs that they hold, and the notices that they must get.

What happens to a run may be decided on any replica; the one that has the worker's stream learns of it from the tail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from oa_base.clock import MS_NS, SECOND_NS
from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import Quarantine
from oa_runlog import wire
from oa_runlog.events import (
    AttemptFailed,
    ChildFinished,
    EventType,
    ExecutorLost,
    InputReceived,
    RequestAnswered,
    RequestExpired,
    RunCancelRequested,
    RunCreated,
    RunEvent,
    RunFinished,
    RunStarted,
)
from oa_runlog.state import RunState, RunStatus
from services.runtime.log.app.ports import RunReader
from services.runtime.log.domain.records import LogRecord, RunRecord
from services.runtime.workers import metrics
from services.runtime.workers.app.attachment import Attachment, Lease
from services.runtime.workers.app.ports import LeaseRecord
from services.runtime.workers.domain.notices import (
    Assignment,
    CancelNotice,
    DrainingNotice,
    HeldLease,
    LeaseLostNotice,
    RunNews,
)
from services.runtime.workers.limits import WorkerLimits

_log = structlog.get_logger(__name__)
_MOVING = frozenset(
    {
        EventType.RUN_STARTED,
        EventType.RUN_CANCEL_REQUESTED,
        EventType.RUN_FINISHED,
        EventType.EXECUTOR_LOST,
        EventType.ATTEMPT_FAILED,
        EventType.INPUT_RECEIVED,
        EventType.REQUEST_ANSWERED,
        EventType.REQUEST_EXPIRED,
        EventType.CHILD_FINISHED,
    }
)
_QUEUEING = frozenset({EventType.RUN_CREATED, EventType.EXECUTOR_LOST, EventType.ATTEMPT_FAILED})
"""Events with which a run begins to wait, unless it is given to a worker at the same time."""
_OF_INTEREST = _MOVING | _QUEUEING


class AttachedWorkers:
    """Tells attached workers what happens to the runs that they hold. It is a listener of the tail."""

    def __init__(self, reader: RunReader, limits: WorkerLimits, cancel_deadline_ms: int) -> None:
        self._reader = reader
        self._limits = limits
        self._cancel_deadline_ms = cancel_deadline_ms
        self._pauses_ms = limits.pauses_ms()
        self.by_id: dict[str, Attachment] = {}
        """Worker -> the stream that speaks for it."""
        self._holders: dict[str, Attachment] = {}
        """Run -> the attached worker that holds it."""
        self._telling: set[asyncio.Task[None]] = set()
        self._broken = Quarantine("attached workers", "run_id", limits.quarantine)
        self.on_run_waits: Callable[[], None] = lambda: None
        """Called when a run may have begun to wait for a worker."""
        self.on_worker_free: Callable[[], None] = lambda: None
        """Called when a worker may have begun to wait for a run."""

    def add(self, attachment: Attachment) -> None:
        """Let a stream speak for its worker from now on. An older stream of the same worker ends."""
        worker_id = attachment.worker.worker_id
        displaced = self.by_id.get(worker_id)
        if displaced is not None:
            self.remove(displaced)
            displaced.end(Refusal("worker_lost", "a newer stream speaks for this worker; use that one"))
        self.by_id[worker_id] = attachment
        metrics.WORKERS_ATTACHED.set(len(self.by_id))

    def remove(self, attachment: Attachment) -> None:
        """Remove a stream, which no longer speaks for its worker."""
        for run_id in list(attachment.leases):
            self._release(attachment, run_id)
        if self.by_id.get(attachment.worker.worker_id) is attachment:
            del self.by_id[attachment.worker.worker_id]
        metrics.WORKERS_ATTACHED.set(len(self.by_id))

    def take_heard(self) -> dict[str, str]:
        """Worker -> attachment, for the workers that gave a sign of life since the last call."""
        heard = {worker_id: one for worker_id, one in self.by_id.items() if one.is_heard}
        for one in heard.values():
            one.is_heard = False
        return {worker_id: one.attachment_id for worker_id, one in heard.items()}

    def give_back(self, heard: Mapping[str, str]) -> None:
        """Take back signs of life that could not be stored, so that the next look stores them."""
        for worker_id, attachment_id in heard.items():
            one = self.by_id.get(worker_id)
            if one is not None and one.attachment_id == attachment_id:
                one.is_heard = True

    def end_left(self, left: Mapping[str, str]) -> None:
        """End the streams that no longer speak for their workers. `left`: worker -> the attachment that it has here."""
        for worker_id, attachment_id in left.items():
            attachment = self.by_id.get(worker_id)
            if attachment is not None and attachment.attachment_id == attachment_id:
                self.remove(attachment)
                text = "this worker was declared lost, or another stream speaks for it; attach again"
                attachment.end(Refusal("worker_lost", text))

    def drain_all(self) -> None:
        """Ask every worker to attach elsewhere, because nothing can be done for it here."""
        for attachment in list(self.by_id.values()):
            attachment.say(DrainingNotice(self._limits.drain_reconnect_ms))

    # ------------------------------------------------------------------------------------------------- a reconnect

    async def restore(
        self, attachment: Attachment, leases: Sequence[LeaseRecord], believed: Sequence[HeldLease]
    ) -> None:
        """Note what the worker holds, and tell it what it does not know: what it lost, and what it never got.

        `leases` were read while the tail continued, so the tail's news of a run may be newer. Changes that both have
        missed are seen in the runs, which are read after the leases are noted.
        """
        if attachment.is_over:
            return
        for lease in leases:
            self._hold(attachment, lease.run_id, lease.lease_epoch)
        for one in believed:
            held = attachment.leases.get(one.run_id)
            if held is not None and held.epoch == one.lease_epoch:
                held.told = True
        self.tell_lost(attachment, believed)
        attachment.is_restored = True
        for run_id, held in list(attachment.leases.items()):
            with self._broken.containing(run_id):  # the worker's other runs go on
                self._restore_one(attachment, held, run_id, await self._reader.run(run_id))

    def _restore_one(self, attachment: Attachment, lease: Lease, run_id: str, run: RunRecord | None) -> None:
        if attachment.leases.get(run_id) is not lease:
            return  # it has ended in the meantime, as the tail reported
        if run is None or not run.state.is_leased or run.state.lease_epoch != lease.epoch:
            self._release(attachment, run_id)  # it had ended before it was noted
            if lease.told:
                attachment.say(LeaseLostNotice(run_id, lease.epoch))
            return
        self.tell(attachment, run)
        if cancel := _cancel_of(run.state, self._cancel_deadline_ms):
            attachment.cancel(cancel)

    def tell_lost(self, attachment: Attachment, believed: Sequence[HeldLease]) -> None:
        """Tell the worker which of the leases that it believes it holds are lost."""
        for one in believed:
            lease = attachment.leases.get(one.run_id)
            if lease is None or lease.epoch != one.lease_epoch:
                attachment.say(LeaseLostNotice(one.run_id, one.lease_epoch))

    def tell_again(self, attachment: Attachment) -> None:
        """Tell the worker about the runs that it got and has not been told about."""
        for run_id, lease in attachment.leases.items():
            if not lease.told:
                self._start_telling(attachment, run_id, lease.epoch)

    def restart(self) -> None:
        """End all streams: the log may have lost what the workers hold. They attach again, and get what it has."""
        for attachment in list(self.by_id.values()):
            self.remove(attachment)
            attachment.end(Refusal("unavailable", "the log may have lost its newest events; attach again"))

    # ------------------------------------------------------------------------------------------------- from the tail

    def on_records(self, records: Sequence[LogRecord]) -> None:
        """Handle new records of the log."""
        kinds = {record.type for record in records}
        if not self.by_id or kinds.isdisjoint(_OF_INTEREST):
            return
        for record in records:
            if record.type in _MOVING:
                with self._broken.containing(record.run_id):
                    self._on_moved(wire.decode_event(record.data))
        if EventType.RUN_FINISHED in kinds:
            self.on_worker_free()
        if not kinds.isdisjoint(_QUEUEING):
            started = {record.run_id for record in records if record.type == EventType.RUN_STARTED}
            waiting = [record for record in records if record.type in _QUEUEING and record.run_id not in started]
            # A time further away is found by a check of the dispatcher.
            for record in waiting:
                with self._broken.containing(record.run_id):
                    if 0 < (pause_ns := _pause_ns(record)) <= self._limits.dispatch_interval_ms * MS_NS:
                        _call_later(pause_ns, self.on_run_waits)
            if waiting:
                self.on_run_waits()

    def _on_moved(self, event: RunEvent) -> None:
        if isinstance(event.body, RunStarted):
            attachment = self.by_id.get(event.body.worker_id)
            if attachment is not None:
                self._hold(attachment, event.run_id, event.body.lease_epoch)
                if event.run_id not in attachment.giving:  # else the dispatcher, which gives the run, tells the worker
                    self._start_telling(attachment, event.run_id, event.body.lease_epoch)
            return
        if isinstance(event.body, ExecutorLost) and event.body.requeued:
            pause_ms = self._pauses_ms[min(event.body.attempt, len(self._pauses_ms)) - 1]
            _call_later(pause_ms * MS_NS, self.on_run_waits)
        if isinstance(event.body, AttemptFailed):
            _call_later(event.body.retry_ns - event.recorded_ns, self.on_run_waits)
        holder = self._holders.get(event.run_id)
        if holder is not None:
            self._on_held(holder, event)

    def _on_held(self, attachment: Attachment, event: RunEvent) -> None:
        epoch = attachment.leases[event.run_id].epoch
        match event.body:
            case RunCancelRequested(_, reason):
                attachment.cancel(CancelNotice(event.run_id, epoch, reason, self._cancel_deadline_ms))
            case InputReceived() | RequestAnswered() | RequestExpired() | ChildFinished():
                attachment.say(RunNews(event.run_id, epoch, event.seq))
            case ExecutorLost(lease_epoch=lost) if lost == epoch:
                self._release(attachment, event.run_id)
                attachment.say(LeaseLostNotice(event.run_id, epoch))
            case AttemptFailed(lease_epoch=failed) if failed == epoch:
                self._release(attachment, event.run_id)
            case RunFinished():
                self._release(attachment, event.run_id)
                if event.lease_epoch != epoch:  # the authority ended it
                    attachment.say(LeaseLostNotice(event.run_id, epoch))

    def _start_telling(self, attachment: Attachment, run_id: str, epoch: int) -> None:
        task = asyncio.create_task(self._tell(attachment, run_id, epoch))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, attachment: Attachment, run_id: str, epoch: int) -> None:
        """Tell a worker about the run that it got. If the read fails, the next heartbeat tries again."""
        try:
            run = await self._reader.run(run_id)
        except Exception as error:  # noqa: BLE001 - the worker's other runs go on
            note_survived(_log, "assignment_not_told", error, run_id=run_id)
            return
        if run is not None and run.state.is_leased and run.state.lease_epoch == epoch:
            self.tell(attachment, run)

    def tell(self, attachment: Attachment, run: RunRecord) -> None:
        """Tell a worker, unless it was told, about a run that it got, as the run is now. It must hold it by then."""
        attachment.tell(Assignment(run, run.state.lease_epoch), _cancel_of(run.state, self._cancel_deadline_ms))

    def _hold(self, attachment: Attachment, run_id: str, epoch: int) -> None:
        """Note the holder of a run, unless a newer lease of the run is known or the stream is over."""
        holder = self._holders.get(run_id)
        if attachment.is_over or (holder is not None and holder.leases[run_id].epoch > epoch):
            return
        if holder is not None and holder is not attachment:
            self._release(holder, run_id)
        self._holders[run_id] = attachment
        attachment.hold(run_id, epoch)
        metrics.LEASES.set(len(self._holders))

    def _release(self, attachment: Attachment, run_id: str) -> None:
        attachment.leases.pop(run_id, None)
        if self._holders.get(run_id) is attachment:
            del self._holders[run_id]
        metrics.LEASES.set(len(self._holders))


def _cancel_of(state: RunState, deadline_ms: int) -> CancelNotice | None:
    if state.status is not RunStatus.CANCELING:
        return None
    return CancelNotice(state.run_id, state.lease_epoch, state.cancel_reason, deadline_ms)


def _pause_ns(record: LogRecord) -> int:
    """How long after its creation a new run may be given to a worker; 0: at once, or it is no new run."""
    if record.type != EventType.RUN_CREATED:
        return 0
    event = wire.decode_event(record.data)
    not_before_ns = event.body.spec.queue.not_before_ns if isinstance(event.body, RunCreated) else None
    return 0 if not_before_ns is None else not_before_ns - event.recorded_ns


def _call_later(pause_ns: int, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(pause_ns / SECOND_NS, call)
