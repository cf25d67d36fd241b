"""One attached worker, as this replica sees it, and the notices to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import Append
from oa_runlog.workers import WorkerStatus
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.pipeline import Pipeline, Place
from services.runtime.workers.app.ports import WorkerRecord
from services.runtime.workers.domain.notices import AppendAnswer, Assignment, CancelNotice, Notice
from services.runtime.workers.limits import WorkerLimits

_FOR_EVER_S = 10.0**9
"""Longer than the life of any token, and longer than a loop can wait."""


@dataclass(slots=True)
class Lease:
    """A lease of an attached worker. Until the worker has been told of the run, a cancel has to wait."""

    epoch: int
    pipeline: Pipeline
    """The appends under it."""
    told: bool = False
    cancel: CancelNotice | None = None
    """The notice that it must end the run, once there is one."""


class Attachment:
    """One stream of a worker: the runs that it holds, when it was last heard, and the notices for it."""

    def __init__(
        self,
        worker: WorkerRecord,
        attachment_id: str,
        heard_at: float,
        pending_limit: int,
        notices_limit: int = WorkerLimits.pending_notices,
    ) -> None:
        """`pending_limit`: unanswered appends; `notices_limit`: notices that wait to be sent."""
        self.worker = worker
        self.attachment_id = attachment_id
        self.status: WorkerStatus = worker.status
        self.capacity = worker.max_concurrent_runs
        """How many runs it may hold: more than `max_concurrent_runs` while some of them only wait."""
        self.heard_at = heard_at
        self.is_heard = False
        """Whether it gave a sign of life that has not been stored yet."""
        self.leases: dict[str, Lease] = {}
        self.giving: set[str] = set()
        """Runs that the log was asked to give to it."""
        self.is_restored = False
        """Whether the worker's leases are known. Until then it gets no runs, and is told about none."""
        self.nothing_waits = False
        """No run waits for it, not even for another run's end: the last look left none, and none has come since."""
        self.outbox: asyncio.Queue[Notice | None] = asyncio.Queue()
        self.over = asyncio.Event()
        """Set when the stream is over."""
        self.ended: Exception | None = None
        """Why the authority ended the stream, if it did: a Refusal, or another exception."""
        self.under_way: dict[str, asyncio.Future[Applied]] = {}
        """Run -> the last append to it that has not been answered."""
        self._pending_limit = pending_limit
        self._notices_limit = notices_limit
        self._taken = asyncio.Event()
        """Set when notices were taken from the outbox, or the stream is over."""
        self._expiry: asyncio.TimerHandle | None = None
        self._pending = asyncio.Semaphore(pending_limit)

    @property
    def is_over(self) -> bool:
        """Whether the stream is over, or ends after the notices that wait."""
        return self.over.is_set()

    @property
    def free_slots(self) -> int:
        """How many more runs it can take."""
        return max(0, self.capacity - len(self.leases.keys() | self.giving))

    def takes_runs(self, now: float, quiet_after_s: float) -> bool:
        """Whether it may get a new run now."""
        is_up = self.status in (WorkerStatus.STARTING, WorkerStatus.RUNNING) and self.is_restored and not self.is_over
        return is_up and self.free_slots > 0 and now - self.heard_at <= quiet_after_s

    def say(self, notice: Notice) -> None:
        """Queue a notice."""
        self.outbox.put_nowait(notice)

    async def notices(self) -> list[Notice]:
        """Wait for a notice, and return all queued notices, in order; an empty list once the stream must end."""
        notices: list[Notice] = []
        notice = await self.outbox.get()
        self._taken.set()
        while notice is not None:
            notices.append(notice)
            if self.outbox.empty():
                return notices
            notice = self.outbox.get_nowait()
        if notices:
            self.outbox.put_nowait(None)  # the end comes after these
        return notices

    def say_in_turn(self, answer: AppendAnswer) -> None:
        """Answer an append that was refused immediately, after the earlier appends to its run have been answered."""
        before = self.under_way.get(answer.run_id)
        if before is None:
            self.say(answer)
        else:
            before.add_done_callback(lambda _: self.say(answer))

    def lasts(self, seconds: float) -> None:
        """End the stream after so many seconds, when its token expires, unless another token arrives before."""
        if self._expiry is not None:
            self._expiry.cancel()
        if not self.is_over and seconds < _FOR_EVER_S:
            expired = Refusal("token_expired", "the token of this stream has expired; attach again with a new one")
            self._expiry = asyncio.get_running_loop().call_later(seconds, self.end, expired)

    def end(self, reason: Exception | None = None) -> None:
        """End the stream after the queued notices have been sent."""
        self.over.set()
        if self._expiry is not None:
            self._expiry.cancel()
        if self.ended is None:
            self.ended = reason
        self._taken.set()
        self.outbox.put_nowait(None)

    def cut(self, reason: Refusal) -> None:
        """End the stream immediately, without sending the queued notices."""
        while not self.outbox.empty():
            self.outbox.get_nowait()
        self.end(reason)

    def hold(self, run_id: str, epoch: int) -> Lease:
        """Note a lease."""
        lease = self.leases.get(run_id)
        if lease is None or lease.epoch != epoch:
            lease = self.leases[run_id] = Lease(epoch, Pipeline(self._pending_limit))
        return lease

    def place_of(self, append: Append) -> Place | None:
        """The place of an append that has just arrived; None if the worker does not hold the append's lease."""
        lease = self.leases.get(append.run_id)
        if lease is None or lease.epoch != append.lease_epoch:
            return None
        return lease.pipeline.place(append.idempotency_key)

    def tell(self, assignment: Assignment, cancel: CancelNotice | None) -> None:
        """Send the run to the worker, once, followed by a cancel that came in the meantime."""
        lease = self.leases.get(assignment.run.state.run_id)
        if lease is None or lease.epoch != assignment.lease_epoch or lease.told or not self.is_restored:
            return
        self.say(assignment)
        lease.told = True
        lease.cancel = lease.cancel or cancel
        if lease.cancel is not None:
            self.say(lease.cancel)

    def cancel(self, notice: CancelNotice) -> None:
        """Tell the worker to end a run, once, as soon as the worker knows of the run."""
        lease = self.leases.get(notice.run_id)
        if lease is None or lease.epoch != notice.lease_epoch or lease.cancel is not None:
            return
        lease.cancel = notice
        if lease.told:
            self.say(notice)

    async def room_for_notices(self) -> None:
        """Wait until fewer than the maximum of notices wait to be sent, or the stream is over."""
        while self.outbox.qsize() >= self._notices_limit and not self.is_over:
            self._taken.clear()
            await self._taken.wait()

    async def acquire_append(self) -> None:
        """Wait until the stream may have one more unanswered append."""
        await self._pending.acquire()

    def release_append(self) -> None:
        """Release the place of an append that was answered."""
        self._pending.release()
