"""The runs that a worker holds, from their assignment to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from oa_base.refusal import Refusal
from oa_worker.sdk.adapter import Adapter, Assignment
from oa_worker.sdk.authority_clock import AuthorityClock
from oa_worker.sdk.limits import WorkerLimits
from oa_worker.sdk.notices import Notice, RunLeft, RunTaken
from oa_worker.sdk.runs.appender import RunAppender, Submit
from oa_worker.sdk.runs.execution import Execution
from oa_worker.sdk.runs.slots import Place, Slots
from openagents.runtime.v1.worker_service_pb2 import (
    CancelAssignment,
    HeldLease,
    LeaseLost,
    RunAssignment,
    RunNews,
    StartChildRequest,
)


class Authority(Protocol):
    """Calls to the authority beside a worker's stream."""

    def read_run(
        self, lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
    ) -> AsyncIterator[bytes]:
        """See `ReadRun`."""
        ...

    async def expire_request(self, lease: HeldLease, request_id: str) -> None:
        """Say that the time of a request is over. Waits while the authority is away. Raises Refusal."""
        ...

    async def start_child(self, request: StartChildRequest) -> str:
        """Start a child, and return its run's id. Waits while the authority is away. Raises Refusal."""
        ...


class Runs:
    """The runs of a worker, each with its adapter, under the newest lease that was given for it."""

    def __init__(
        self,
        adapters: Sequence[Adapter],
        notify: Callable[[Notice], None],
        authority: Authority,
        idle: asyncio.Event,
        slots: Slots,
    ) -> None:
        """`idle` is set while there are none."""
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._notify = notify
        self._authority = authority
        self._executions: dict[str, Execution] = {}
        self.slots = slots
        self.clock = AuthorityClock()
        self.idle = idle
        self.idle.set()

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters that this worker has."""
        return sorted(self._adapters)

    def leases(self) -> list[HeldLease]:
        """Return the leases of all runs, which the authority compares with its own."""
        held = [execution.assignment for execution in self._executions.values()]
        return [HeldLease(run_id=run.run_id, lease_epoch=run.lease_epoch) for run in held]

    def take(self, message: RunAssignment, submit: Submit, limits: WorkerLimits) -> None:
        """Begin a run that was assigned, unless it has begun under this lease already."""
        run, epoch = message.run, message.lease_epoch
        held = self._executions.get(run.run_id)
        if held is not None:
            if held.assignment.lease_epoch >= epoch:
                return  # assigned twice
            held.lose(Refusal("stale_epoch", "the run was assigned again; leave it to the new lease"))
        appender = RunAppender(run.run_id, epoch, submit, limits)
        place = Place(self.slots)
        assignment = Assignment(
            run.run_id,
            epoch,
            run.attempt,
            run.spec,
            read=self._authority.read_run,
            stored=appender.stored,
            expire=self._authority.expire_request,
            start_child=self._authority.start_child,
            waiting=place.waiting,
            now=self.clock.now,
        )
        execution = Execution(assignment, self._adapters.get(run.spec.adapter), appender, place)
        self._executions[run.run_id] = execution
        self.idle.clear()
        self._notify(RunTaken(run.run_id, run.attempt))
        execution.done.add_done_callback(lambda task: self._left(execution))

    def _left(self, execution: Execution) -> None:
        run_id = execution.assignment.run_id
        task = execution.done
        finish = None if task.cancelled() or task.exception() else task.result()
        if self._executions.get(run_id) is execution:
            del self._executions[run_id]
        if not self._executions:
            self.idle.set()
        self._notify(RunLeft(run_id, finish))

    def cancel(self, message: CancelAssignment) -> None:
        """Ask a run's adapter to end it."""
        execution = self._executions.get(message.run_id)
        if execution is not None and execution.assignment.lease_epoch == message.lease_epoch:
            execution.cancel(message.reason, message.deadline_ms)

    def note_news(self, message: RunNews) -> None:
        """Note that others have written something to a run."""
        execution = self._executions.get(message.run_id)
        if execution is not None:
            execution.assignment.news.tell()

    def note_all(self) -> None:
        """Note that others may have written something to any of the runs."""
        for execution in self._executions.values():
            execution.assignment.news.tell()

    def lose(self, message: LeaseLost) -> None:
        """End the work on a run that the authority has taken back."""
        execution = self._executions.get(message.run_id)
        if execution is not None and execution.assignment.lease_epoch <= message.lease_epoch:
            execution.lose(Refusal("stale_epoch", "the authority has taken the run back; leave it"))

    async def lose_all(self, refusal: Refusal) -> None:
        """End the work on all runs, and wait for its end."""
        executions = list(self._executions.values())
        for execution in executions:
            execution.lose(refusal)
        await asyncio.gather(*(execution.done for execution in executions), return_exceptions=True)
