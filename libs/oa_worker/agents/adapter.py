"""A function as an adapter: an input goes in; a result, a failure or a cancel comes out as the run's finish."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from oa_base.at_work import RUN_AT_WORK
from oa_base.refusal import Refusal
from oa_wire.rules import check_rules
from oa_wire.shapes import Misfit, Shape
from oa_worker.agents.failures import AgentExit, AgentFailure, cause_in, words_of
from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.primitives.ending import is_canceling
from oa_worker.agents.primitives.steps.within import leave_steps
from oa_worker.agents.run import Run
from oa_worker.sdk.adapter import Assignment, Emit
from oa_worker.sdk.runs.execution import failed
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1.worker_service_pb2 import Agent

In = TypeVar("In")
Out = TypeVar("Out")
Handler = Callable[[Run[In]], Coroutine[Any, Any, Out]]
"""A function that is an agent."""
Begin = Callable[[Assignment, In, Emit, AgentLimits], Run[In]]
"""Makes the run that the function gets."""

_log = logging.getLogger("oa_worker.agents")


class AgentAdapter(Generic[In, Out]):
    """Executes runs of one agent."""

    def __init__(
        self,
        name: str,
        handler: Handler[In, Out],
        shapes: tuple[Shape[In], Shape[Out]],
        description: str,
        limits: AgentLimits,
    ) -> None:
        """Raises Refusal for values that the contract does not take: a name with a space, a schema without an end."""
        self.name = name
        self._handler = handler
        self._input, self._output = shapes
        self._limits = limits
        self.agent = Agent(
            name=name,
            input_schema_json=self._input.schema_json,
            output_schema_json=self._output.schema_json,
            description=description,
        )
        """What the authority is told about the agent."""
        check_rules(self.agent)

    async def run(self, assignment: Assignment, emit: Emit, begin: Begin[In] = Run) -> pb.RunFinished:
        """Run the function to its end; see `Adapter.run`."""
        if assignment.spec.WhichOneof("input") != "agent":
            return failed("invalid_input", "the agent takes a JSON input; set spec.agent")
        try:
            value = self._input.read(assignment.spec.agent.input_json)
        except Misfit as misfit:
            return failed("invalid_input", f"the input does not fit: {misfit}; give one of the agent's type")
        run = begin(assignment, value, emit, self._limits)
        context = copy_context()
        context.run(RUN_AT_WORK.set, run.id)
        leave_steps(context)
        work = asyncio.create_task(self._called(run), name=f"agent {self.name} {run.id}", context=context)
        run.begins_in(work)
        try:
            await self._until_done(work, assignment)
            await run.said_all()
        except asyncio.CancelledError:
            await self._stop(work, run)
            raise
        finally:
            run.say_no_more()
        return self._finish(work, assignment, run)

    async def _called(self, run: Run[In]) -> Out:
        try:
            result = self._handler(run)
            if not inspect.isawaitable(result):
                raise AgentFailure("agent_error", "the agent's function is not async; write `async def`")
            return await result
        except SystemExit as error:
            raise AgentExit(error) from error

    async def _until_done(self, work: asyncio.Task[Out], assignment: Assignment) -> None:
        """Wait for the function. A cancel of the run reaches it as CancelledError, only once and immediately."""
        asked = asyncio.create_task(assignment.cancel.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel("the run's cancel was requested")
                await asyncio.wait({work})
        finally:
            asked.cancel()

    async def _stop(self, work: asyncio.Task[Out], run: Run[In]) -> None:
        """End the function because the run is no longer ours; don't wait forever for one that does not end."""
        work.cancel("the run was taken away from this worker")
        _, running = await asyncio.wait({work}, timeout=self._limits.stop_timeout_ms / 1000)
        if running:
            run.logger.error("the agent ignores that its run was taken away, and is left behind")
            work.add_done_callback(_forget)
        else:
            _forget(work)

    def _finish(self, work: asyncio.Task[Out], assignment: Assignment, run: Run[In]) -> pb.RunFinished:
        raised = None if work.cancelled() else work.exception()
        if (work.cancelled() and assignment.cancel.requested) or (raised is not None and is_canceling(raised)):
            return pb.RunFinished(outcome=pb.RUN_OUTCOME_CANCELED, reason="canceled", message="ended on request")
        if work.cancelled():
            return failed(
                "agent_error",
                "the agent ended with CancelledError, and nobody had asked for that; find who canceled it",
            )
        error = None if raised is None else cause_in(raised)
        if isinstance(error, Refusal):
            raise error
        if isinstance(error, AgentFailure):
            return failed(error.reason, error.message)
        if error is not None:
            run.logger.error("the agent failed", exc_info=raised)
            return failed("agent_error", words_of(error, self._limits.max_failure_chars))
        try:
            text = self._output.write(work.result())
        except Misfit as misfit:
            run.logger.error("the agent's result does not fit its output type: %s", misfit)
            return failed("invalid_result", f"the result does not fit: {misfit}; return one of the agent's type")
        run.warn_of_unasked_steps()
        return pb.RunFinished(outcome=pb.RUN_OUTCOME_SUCCEEDED, result_json=text)


def _forget(work: asyncio.Task[Any]) -> None:
    """Retrieve the task's exception: nobody else does so any more, and asyncio would complain."""
    if not work.cancelled() and (error := work.exception()) is not None:
        _log.info("an agent whose run was taken away ended with %s", type(error).__name__)
