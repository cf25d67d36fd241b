"""One run, as its function sees it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from oa_base.refusal import Refusal
from oa_wire.given import check_duration, check_flag, check_function, check_text_arguments
from oa_wire.rules import check_rules
from oa_wire.shapes import Misfit, Shape, json_text, shape_of
from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.primitives.checkpoints import Checkpoints
from oa_worker.agents.primitives.children import Child, Children
from oa_worker.agents.primitives.ending import check_not_canceling
from oa_worker.agents.primitives.inbox import Inbox
from oa_worker.agents.primitives.requests import Requests, Settled, options_of
from oa_worker.agents.primitives.saying.saying import RunLog, Saying
from oa_worker.agents.primitives.steps.calling import called
from oa_worker.agents.primitives.steps.steps import Steps, arguments_of, check_name, result_shape
from oa_worker.agents.primitives.steps.within import check_outside_step
from oa_worker.agents.primitives.takeover.past import Past
from oa_worker.agents.primitives.times import time_in, wait_until
from oa_worker.sdk.adapter import Assignment, Emit
from openagents.runtime.v1 import event_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import TypeForm

In_co = TypeVar("In_co", covariant=True)
P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")

_LOGGER = logging.getLogger("oa_worker.agents")


class Run(Saying, Generic[In_co]):
    """A run that this worker holds. Everything that it says goes to the run's log, in order, once.

    Every method may raise Refusal: at once for something that no log can hold, and for everything once the log takes no
    more.
    """

    def __init__(self, assignment: Assignment, value: In_co, emit: Emit, limits: AgentLimits) -> None:
        super().__init__(RunLog(emit, limits), assignment.lease_epoch)
        self._assignment = assignment
        self._input = value
        self._past = Past(assignment, limits.past_patience_ms)
        self._steps = Steps(assignment, self._log.append, limits, self._past)
        self._inbox = Inbox(assignment, self._past)
        self._checkpoints = Checkpoints(assignment, self._log.append, limits)
        self._requests = Requests(assignment, self._log.append, self._past)
        self._children = Children(assignment, self._past)
        self._children.waiting = self.waiting
        extra = {"run_id": self.id, "attempt": self.attempt}
        self.logger = logging.LoggerAdapter(_LOGGER.getChild(assignment.spec.adapter), extra)
        """Writes to the worker's own log, and names the run."""

    @property
    def input(self) -> In_co:
        """The input that the caller gave."""
        return self._input

    @property
    def id(self) -> str:
        """The run's id (`run_…`)."""
        return self._assignment.run_id

    @property
    def attempt(self) -> int:
        """1, plus one for each worker that was lost with the run and for each failure after which it is tried again."""
        return self._assignment.attempt

    @overload
    async def step(self, name: str, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def step(self, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def step(self, name: str, function: Callable[..., Any], /, *args: object, **kwargs: object) -> Any:
        """Perform an action once for the run, no matter what dies: `quote = await run.step("quote", price_of, item)`.

        The result is stored before it is returned, as JSON of the type that the function's annotation states. After a
        takeover, a step that was done returns its stored result, and a step that was interrupted is done again. A
        function that is not `async` runs in a thread. Steps are identified by their order, name and arguments, which
        therefore must be the same each time; otherwise the run fails with `step_mismatch`. The function may say
        something to the run, and may not ask it for anything (a step, a child, an answer, an input).
        """
        check_name(name)
        check_function(function, "function")
        arguments, shape = arguments_of(args, kwargs), result_shape(function)
        return await self._steps.once(name, arguments, shape, lambda: called(function, *args, **kwargs))

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None, None]:
        """Let other runs have the run's slot while the block waits: `async with run.waiting(): await gather(…)`.

        Calls that wait for people, time or children do this by themselves if they are made in the function's own task.
        In another task they keep the slot, because the function may be at work at the same time. The end of the block
        waits for a slot.
        """
        if not self._past.in_own_task():
            yield
            return
        async with self._assignment.waiting():
            yield

    def begins_in(self, task: asyncio.Task[Any]) -> None:
        """Note the function's own task. The worker calls this."""
        self._past.begins_in(task)

    def warn_of_unasked_steps(self) -> None:
        """Name, in the worker's log, the steps that were done before and that the function has ended without.

        The worker calls this.
        """
        for step in self._steps.unasked():
            self.logger.warning(
                "step %d, %r, was done, and attempt %d has ended without it; put into steps what may differ",
                *(step.ordinal, step.name, self.attempt),
            )

    async def now(self, name: str = "now") -> datetime:
        """Return the authority's time in UTC, as a step: the same after a takeover. Give each branch its own `name`."""

        async def now() -> datetime:
            return self._assignment.now()

        check_name(name)
        return await self._steps.once(name, None, _TIME, now)

    async def random(self, name: str = "random") -> float:
        """Return a number from 0 up to, but not including, 1, as a step: the same after a takeover. Not for secrets.

        Give each branch of a function its own `name`.
        """
        check_name(name)
        return await self._steps.once(name, None, _NUMBER, _chance)

    async def sleep(self, delay: timedelta, name: str = "sleep") -> None:
        """Wait until `delay` has passed since the first call; after a takeover, only for the rest of it.

        Give each branch of a function its own `name`.
        """

        async def until() -> datetime:
            return time_in(delay, "delay", self._assignment.now())

        check_duration(delay, "delay")
        check_name(name)
        end = await self._steps.once(name, delay.total_seconds(), _TIME, until)
        async with self.waiting():
            await self._until(end)

    async def save(self, value: object) -> int:
        """Store how far the agent has come, for a worker that takes over; return the checkpoint's number in the run.

        The checkpoint is stored, as JSON, when this returns. The newest one of the run counts. Raises Refusal
        `payload_too_large`.
        """
        return await self._checkpoints.save(json_text(value, "value"))

    @overload
    async def restore(self) -> object: ...

    @overload
    async def restore(self, type_: TypeForm[M]) -> M | None: ...

    async def restore(self, type_: TypeForm[Any] = object) -> Any:
        """Return the value that was saved last in this run, on any worker; None if nothing was saved.

        Raises Refusal `invalid_value` for a value that is not of the type, and for a type with a field that is written
        under another name than it is read.
        """
        self._log.check_loop()
        shape = shape_of(type_, "validation")
        shape.check_reads_what_it_writes()
        text = await self._checkpoints.newest()
        return None if text is None else _read(shape, text, "what the run has saved", "state_json")

    async def start_child(
        self, agent: str, input: object, *, title: str = "", cancel_with_parent: bool = True
    ) -> Child:
        """Start a run of another agent: `child = await run.start_child("quote", Ask(item))`, and later
        `await child.result(Answer)`.

        The child is a run of its own that belongs to the same person and org. It is started once, no matter which
        process dies. `cancel_with_parent`: the child is canceled when this run is to end, or has ended. Raises Refusal
        `limit_reached`, and `invalid_value` for an input that no worker takes.
        """
        check_text_arguments(agent=agent, title=title)
        check_flag(cancel_with_parent, "cancel_with_parent")
        spec = pb.RunSpec(adapter=agent, title=title, agent=pb.AgentSpec(input_json=json_text(input, "input")))
        check_rules(spec)
        await check_not_canceling(self._assignment)
        return await self._children.start(spec, cancel_with_parent=cancel_with_parent)

    async def approve(self, title: str, *, detail: str = "", deadline: timedelta | None = None) -> bool:
        """Ask a person for approval, and wait for the answer: `if not await run.approve("Order for 12.50?"): …`.

        The question is asked once for the run, no matter which process dies; the first answer counts. After the
        deadline the answer is no.
        """
        check_text_arguments(title=title, detail=detail)
        request = pb.RequestOpened(kind=pb.REQUEST_KIND_APPROVAL, title=title, detail=detail, default_option="no")
        return (await self._settled(request, deadline)).option == "yes"

    async def choose(
        self,
        title: str,
        options: Sequence[str] | Mapping[str, str],
        *,
        detail: str = "",
        deadline: timedelta | None = None,
        default: str = "",
    ) -> str:
        """Ask a person to choose an option, and return its id. `options`: ids, or ids with the texts that people see.

        After the deadline the result is `default`, or "" without one.
        """
        check_text_arguments(title=title, detail=detail, default=default)
        offered = options_of(options)
        if default and default not in {option.id for option in offered}:
            raise Refusal("invalid_value", "default is none of the options; name one of them, or none", field="default")
        request = pb.RequestOpened(
            kind=pb.REQUEST_KIND_CHOICE,
            title=title,
            detail=detail,
            options=offered,
            default_option=default,
        )
        return (await self._settled(request, deadline)).option

    async def ask(self, title: str, *, detail: str = "", deadline: timedelta | None = None) -> str | None:
        """Ask a person for a text, and return it; None after the deadline."""
        check_text_arguments(title=title, detail=detail)
        request = pb.RequestOpened(kind=pb.REQUEST_KIND_TEXT, title=title, detail=detail)
        settled = await self._settled(request, deadline)
        return settled.text if settled.answered_by else None

    @overload
    async def receive(self) -> object: ...

    @overload
    async def receive(self, type_: TypeForm[M]) -> M: ...

    async def receive(self, type_: TypeForm[Any] = object) -> Any:
        """Return the next input that somebody sends to the run (`oa run send`, `RunHandle.send`); wait for one.

        Every input is received once, in order. After a takeover they are received from the first one on, because the
        function begins again. Raises Refusal `invalid_value` for an input that is not of the type. After the run's
        cancel was requested, the inputs that came before it can still be received, and then it raises
        `invalid_transition` at once.
        """
        check_outside_step("an input")
        shape = shape_of(type_, "validation")
        text = None
        while text is None:  # if several wait, one of them takes it
            async with self.waiting():
                await self._inbox.arrival()
            text = self._inbox.take()
        return _read(shape, text, "an input of the run", "input_json")

    @overload
    def inbox(self) -> AsyncIterator[object]: ...

    @overload
    def inbox(self, type_: TypeForm[M]) -> AsyncIterator[M]: ...

    async def inbox(self, type_: TypeForm[Any] = object) -> AsyncIterator[Any]:
        """Iterate over all inputs of the run as they come, without end: `async for message in run.inbox(str)`."""
        while True:
            yield await self.receive(type_)

    async def _settled(self, request: pb.RequestOpened, deadline: timedelta | None) -> Settled:
        check_outside_step(f"the answer to {request.title!r}")  # before others may have the slot
        await check_not_canceling(self._assignment)
        async with self.waiting():
            return await self._requests.settle(request, deadline)

    async def _until(self, end: datetime) -> None:
        await wait_until(end, self._assignment.now)
        await self._past.turn_of_time(end)


def _read(shape: Shape[M], text: str, what: str, field: str) -> M:
    try:
        return shape.read(text)
    except Misfit as misfit:
        raise Refusal(
            "invalid_value", f"{what} does not fit ({misfit}); use one of the agent's type", field=field
        ) from None


async def _chance() -> float:
    return random.random()


_TIME = Shape(datetime, "validation")
_NUMBER = Shape(float, "validation")
