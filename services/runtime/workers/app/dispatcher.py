"""Gives runs to attached workers: runs that wait, and new runs as they are created.

Any number of replicas may do this at once: the assignment of a run is decided under its partition's lock, so the second
replica to try finds that there is nothing to do.

If a worker of this replica can take a new run and no other run waits for that worker, the batch that creates the run
also gives it to the worker. Otherwise the run waits, and gets its turn in a look at all waiting runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection

import structlog

from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import Quarantine, concerns_all
from oa_platform.tasks.word import Word
from oa_runlog.authority.commands import AssignRun, CreateRun
from services.runtime.log.app.log import Log
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.records import RunRecord
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.ports import QueueRules, WaitingRun, WorkerStore
from services.runtime.workers.domain.turns import Turns
from services.runtime.workers.limits import WorkerLimits

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Gives runs to workers that have a free slot, the matching adapter and the run's org."""

    def __init__(
        self, log: Log, attached: AttachedWorkers, store: WorkerStore, limits: WorkerLimits, rules: QueueRules
    ) -> None:
        self._log = log
        self._attached = attached
        self._store = store
        self._limits = limits
        self._rules = rules
        self._turns = Turns()
        self._broken = Quarantine("dispatcher", "run_id", limits.quarantine)
        self._next_look_s = 0.0
        self._word = Word()
        self._began_to_wait = 0
        """How many times a run may have begun to wait."""
        attached.on_run_waits = self._run_waits
        attached.on_worker_free = self._word.give

    def _run_waits(self) -> None:
        self._look_at_all()
        self._word.give()

    def _look_at_all(self) -> None:
        """Discard what earlier looks found: a run may wait for any worker."""
        self._began_to_wait += 1
        for attachment in self._attached.by_id.values():
            attachment.nothing_waits = False

    # ------------------------------------------------------------------------------------------------- new runs

    async def create(self, command: CreateRun) -> Applied:
        """Create a run, and give it to a worker at once if one waits for it. Raises Refusal."""
        created = self._log.submit(command)
        attachment = self._taker(command)
        if attachment is not None:
            _ = self._give(attachment, WaitingRun(command.run_id, command.user_id, command.spec))
            workers, worker_id = self._attached.by_id, attachment.worker.worker_id
            workers[worker_id] = workers.pop(worker_id)  # the other workers come before it now
        return await asyncio.shield(created)

    def _taker(self, command: CreateRun) -> Attachment | None:
        """The worker that may get a new run at once; None if this run or another one has to wait for something else."""
        queue, org_id, adapter = command.spec.queue, command.org_id, command.spec.adapter
        if queue.not_before_ns is not None or queue.concurrency is not None or command.spec.thread_policy is not None:
            return None
        for one in self._attached.by_id.values():
            fits = one.worker.org_id == org_id and adapter in one.worker.adapters
            if fits and one.nothing_waits and self._takes_runs(one):
                return one
        return None

    # ------------------------------------------------------------------------------------------------- what waits

    async def run(self) -> None:
        """Dispatch until canceled: when something may have changed, and at intervals."""
        while True:
            await self._word.within(self._limits.dispatch_interval_ms / 1000)
            try:
                if time.monotonic() >= self._next_look_s:
                    self._next_look_s = time.monotonic() + self._limits.dispatch_interval_ms / 1000
                    self._look_at_all()
                    await self._look_ahead()
                await self.dispatch()
            except Exception as error:  # noqa: BLE001 - runs that can't be given away now wait for the next look
                note_survived(_log, "dispatch_failed", error)
                pause_ms = error.retry_after_ms if isinstance(error, Refusal) else 0
                await asyncio.sleep((pause_ms or self._limits.dispatch_interval_ms) / 1000)
                self._word.give()

    async def _look_ahead(self) -> None:
        """Schedule a look for when the next run's time comes."""
        wait_ms = await self._store.next_time_ms(self._limits.dispatch_interval_ms)
        if wait_ms is not None:
            asyncio.get_running_loop().call_later(wait_ms / 1000, self._run_waits)

    async def dispatch(self) -> None:
        """Fill the free slots. Raises Refusal unavailable."""
        idle: dict[tuple[str, frozenset[str]], int] = {}
        for attachment in _in_turns(self._attached.by_id.values()):
            if attachment.nothing_waits or not self._takes_runs(attachment):
                continue
            kind = attachment.worker.org_id, frozenset(attachment.worker.adapters)
            if idle.get(kind) == self._began_to_wait:
                attachment.nothing_waits = True  # as a look for another worker of the same kind found
                continue
            if await self._fill(attachment):
                idle[kind] = self._began_to_wait

    def _takes_runs(self, attachment: Attachment) -> bool:
        return attachment.takes_runs(time.monotonic(), self._limits.quiet_after_ms / 1000)

    async def _fill(self, attachment: Attachment) -> bool:
        """Give the worker the runs that it may have; return whether nothing waits after that."""
        worker, began_to_wait, taken = attachment.worker, self._began_to_wait, self._broken.taken
        limit = min(attachment.free_slots, self._limits.dispatch_page)
        queue = await self._store.waiting_runs(
            worker.org_id, worker.adapters, limit, self._rules, self._turns.marks, self._broken
        )
        if not self._takes_runs(attachment):
            return False  # it left in the meantime, and would hold the run until it counts as lost
        given = await asyncio.gather(*(self._give(attachment, run) for run in queue.runs), return_exceptions=True)
        answers = zip(queue.runs, given, strict=True)
        refused = [(run.run_id, error) for run, error in answers if isinstance(error, BaseException)]
        for run_id, error in refused:
            self._refused(run_id, error)
        attachment.nothing_waits = not (queue.others or refused) and self._began_to_wait == began_to_wait
        if (len(queue.runs) == self._limits.dispatch_page or self._broken.taken > taken) and self._broken.has_room:
            self._word.give()  # others come after these
        return attachment.nothing_waits

    def _refused(self, run_id: str, error: BaseException) -> None:
        """Handle that a run was not given away. Raises the error if it concerns all runs.

        A run with a defect waits in front of the others no longer. With any other run, another replica was faster, or
        the run no longer waits, or it has to wait longer.
        """
        if not isinstance(error, Exception) or concerns_all(error):
            raise error
        if not isinstance(error, Refusal) or error.reason == "internal":
            self._broken.take(run_id, error)

    # ------------------------------------------------------------------------------------------------- giving

    def _give(self, attachment: Attachment, run: WaitingRun) -> asyncio.Future[Applied]:
        """Try to give a run to the worker, and tell the worker once that is stored. The answer may be a Refusal."""
        try:
            answer = self._log.submit(AssignRun(run.run_id, attachment.worker.worker_id))
        except Refusal as refusal:
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(refusal)
        attachment.giving.add(run.run_id)
        answer.add_done_callback(lambda done: self._given(attachment, run, done))
        return answer

    def _given(self, attachment: Attachment, run: WaitingRun, answer: asyncio.Future[Applied]) -> None:
        attachment.giving.discard(run.run_id)
        if answer.cancelled():
            return  # this replica is shutting down
        error = answer.exception()
        if error is not None:
            _log.debug("assignment_refused", run_id=run.run_id, reason=getattr(error, "reason", ""))
            self._attached.tell_again(attachment)  # it may have got the run a moment before, while this was on its way
            return
        self._turns.served(run.user_id)
        state = answer.result().state
        if state is not None:
            # If the tail has not come this far yet, it tells the worker when it has.
            self._attached.tell(attachment, RunRecord(state, run.spec))


def _in_turns(attachments: Collection[Attachment]) -> list[Attachment]:
    """The least busy worker of each org, then the next one of each, and so on: runs are spread over an org's workers,
    and an org with thousands of workers lets the others have their turns."""
    seen = Counter[str]()
    turns = list[tuple[int, Attachment]]()
    for one in sorted(attachments, key=lambda one: len(one.leases)):
        turns.append((seen[one.worker.org_id], one))
        seen[one.worker.org_id] += 1
    return [one for _, one in sorted(turns, key=lambda turn: turn[0])]
