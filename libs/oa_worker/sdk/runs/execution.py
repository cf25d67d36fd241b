"""One run on this worker: the adapter at one end, the run's log at the other."""

from __future__ import annotations

import asyncio
import logging

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_base.visible import storable
from oa_worker.sdk.adapter import Adapter, Assignment, Emit
from oa_worker.sdk.runs.appender import RunAppender
from oa_worker.sdk.runs.slots import Place
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import RunFinished

_log = logging.getLogger("oa_worker")
MAX_MESSAGE_CHARS = 2000
"""The contract's limit for the message of a finish."""


class Execution:
    """Runs an assignment to its end, once it has a slot. `done` is the task; its result is the finish, or None when the
    run was lost.
    """

    def __init__(self, assignment: Assignment, adapter: Adapter | None, appender: RunAppender, place: Place) -> None:
        self.assignment = assignment
        self._adapter = adapter
        self._appender = appender
        self._place = place
        self.done = asyncio.create_task(self._run(), name=f"run {assignment.run_id}")

    def lose(self, refusal: Refusal) -> None:
        """Stop at once and write nothing more, because the run is no longer ours."""
        self._appender.close(refusal)
        self._place.ends()
        self.done.cancel()

    def cancel(self, reason: str, deadline_ms: int) -> None:
        """Ask the run to end; see `CancelSignal`."""
        self._place.ends()
        self.assignment.cancel.request(reason, deadline_ms)

    async def _run(self) -> RunFinished | None:
        async with self._place:
            return await self._at_work()

    async def _at_work(self) -> RunFinished | None:
        pump = asyncio.create_task(self._appender.pump())
        work = asyncio.create_task(self._adapted())
        try:
            await asyncio.wait({pump, work}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():  # refused before the adapter ended: it need not go on
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                pump.result()
            finish = work.result()
            await self._appender.finish(finish)
            await pump
            return finish
        except Refusal as refusal:
            return await self._refused(refusal)
        finally:
            for task in (work, pump):
                task.cancel()
            await asyncio.gather(work, pump, return_exceptions=True)

    async def _refused(self, refusal: Refusal) -> RunFinished | None:
        """Handle the refusal of an append: unless the run is somebody else's now, its finish states the refusal."""
        run_id = self.assignment.run_id
        _log.warning("run %s: the log takes no more: %s", run_id, refusal)
        if refusal.info.action is ClientAction.STOP_WORK:
            return None
        finish = failed(refusal.reason, f"the authority refused an event of this run: {refusal.message}")
        try:
            await self._appender.append_finish(finish)
        except Refusal as second:
            _log.warning("run %s could not be finished: %s", run_id, second)
            return None
        return finish

    async def _adapted(self) -> RunFinished:
        if self._adapter is None:
            message = f"this worker has no adapter {self.assignment.spec.adapter!r}; start one that has it"
            return failed("adapter_not_available", message)
        return await finish_of(self._adapter, self.assignment, self._appender.emit)


async def finish_of(adapter: Adapter, assignment: Assignment, emit: Emit) -> RunFinished:
    """Return the adapter's finish, or one that states its failure. A run that its worker holds always gets an end."""
    try:
        finish: object = await _run_or_refused(adapter, assignment, emit)
        if isinstance(finish, RunFinished):
            return finish
        _log.error("adapter %s returned no RunFinished of run %s", assignment.spec.adapter, assignment.run_id)
    # Neither an adapter's defect nor an exit that it calls may end the worker's other runs. Nor may a cancel that
    # came from within leave this run without an end.
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and _is_canceled():
            raise
        _log.exception("adapter %s failed on run %s", assignment.spec.adapter, assignment.run_id)
    return failed("adapter_error", f"adapter {assignment.spec.adapter!r} failed; the worker's log says how")


async def _run_or_refused(adapter: Adapter, assignment: Assignment, emit: Emit) -> object:
    try:
        return await adapter.run(assignment, emit)
    except Refusal as refusal:  # also one that says that a run is another worker's: the authority knows whether it is
        return refused(refusal)


def _is_canceled() -> bool:
    """Whether somebody asked the current task to end. A task that it waited for may have been canceled instead."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def refused(refusal: Refusal) -> RunFinished:
    """The finish of a run that failed by a refusal."""
    message = refusal.message
    if refusal.field and message.startswith("it "):  # as rules of messages phrase it, beside the field
        message = refusal.field + message.removeprefix("it")
    return failed(refusal.reason, message)


def as_stored(finish: RunFinished, max_result_bytes: int) -> RunFinished:
    """The finish that an authority with this limit stores: a run whose result is larger has failed."""
    size = len(finish.result_json.encode())
    if size <= max_result_bytes:
        return finish
    text = f"the result has {size} bytes; send at most {max_result_bytes}, and a reference to what is larger"
    return failed("payload_too_large", text)


def failed(reason: str, message: str) -> RunFinished:
    """The finish of a run that failed, as a worker states it."""
    said = storable(message)[:MAX_MESSAGE_CHARS]
    return RunFinished(outcome=event_pb2.RUN_OUTCOME_FAILED, reason=reason, message=said)
