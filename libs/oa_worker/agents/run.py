"""One run, as its function sees it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, ParamSpec, TypeVar, overload

from oa_base.refusal import Refusal
from oa_wire.given import check_duration, check_flag, check_function, check_text, check_text_arguments
from oa_wire.rules import check_rules
from oa_wire.shapes import Misfit, Shape, json_text, shape_of
from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.primitives.calling import called
from oa_worker.agents.primitives.checkpoints import Checkpoints
from oa_worker.agents.primitives.children import Child, Children
from oa_worker.agents.primitives.inbox import Inbox
from oa_worker.agents.primitives.past import Past
from oa_worker.agents.primitives.requests import Requests, Settled, options_of
from oa_worker.agents.primitives.saying import RunLog, Saying
from oa_worker.agents.primitives.steps import Steps, arguments_of, result_shape
from oa_worker.agents.primitives.times import time_in
from oa_worker.sdk.adapter import Assignment, Emit
from openagents.runtime.v1 import event_pb2 as pb

In_co = TypeVar("In_co", covariant=True)
P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")

_LOGGER = logging.getLogger("oa_worker.agents")


class Run(Saying, Generic[In_co]):
    """A run that this worker holds. Everything that it says goes to the run's log, in order, once.

    Every method may raise Refusal: of what can't stand in a log at once, and of everything when the log takes no more.
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
        """For the worker's own log; names the run."""

    @property
    def input(self) -> In_co:
        """What the caller gave."""
        return self._input

    @property
    def id(self) -> str:
        """The run's id (`run_…`)."""
        return self._assignment.run_id

    @property
    def attempt(self) -> int:
        """1, and one more for each worker that was lost with the run."""
        return self._assignment.attempt

    @overload
    async def step(self, name: str, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def step(self, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def step(self, name: str, function: Callable[..., Any], /, *args: object, **kwargs: object) -> Any:
        """Do something once for the run, whatever dies: `quote = await run.step("quote", price_of, item)`.

        The result is stored before it is returned, as JSON of the type that the function's annotation states. After a
        takeover a step that was done returns its stored result; one that was cut off is done again. A function that
        is not `async` runs in a thread. Steps are told apart by their order, name and arguments, which therefore have
        to be the same each time: else the run fails as `step_mismatch`.
        """
        check_text(name, "name")
        check_function(function, "function")
        arguments, shape = arguments_of(args, kwargs), result_shape(function)
        return await self._steps.once(name, arguments, shape, lambda: called(function, *args, **kwargs))

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None, None]:
        """While the block waits, other runs may have the run's slot: `async with run.waiting(): await gather(…)`.

        What waits for people, time or children does so by itself, where it stands in the function's own task. In a
        task of its own it keeps the slot, since the function may be at work beside it. The end of the block waits for
        a slot.
        """
        if not self._past.in_own_task():
            yield
            return
        async with self._assignment.waiting():
            yield

    def begins_in(self, task: asyncio.Task[Any]) -> None:
        """The function's own task. The worker calls it."""
        self._past.begins_in(task)

    def warn_of_unasked_steps(self) -> None:
        """The function has ended: name the steps that were done before and that it did without, in the worker's log.

        The worker calls it.
        """
        for step in self._steps.unasked():
            self.logger.warning(
                "step %d, %r, was done, and attempt %d has ended without it; put into steps what may differ",
                *(step.ordinal, step.name, self.attempt),
            )

    async def now(self, name: str = "now") -> datetime:
        """The time, as a step: the same after a takeover. In UTC. Give each branch of a function another `name`."""
        check_text(name, "name")
        return await self._steps.once(name, None, _TIME, _utc_now)

    async def random(self, name: str = "random") -> float:
        """A number from 0 to 1, without 1, as a step: the same after a takeover. Not for secrets.

        Give each branch of a function another `name`.
        """
        check_text(name, "name")
        return await self._steps.once(name, None, _NUMBER, _chance)

    async def sleep(self, delay: timedelta, name: str = "sleep") -> None:
        """Wait until `delay` after this was first called: a takeover waits for the rest of it only.

        Give each branch of a function another `name`.
        """

        async def until() -> datetime:
            return time_in(delay, "delay")

        check_duration(delay, "delay")
        check_text(name, "name")
        end = await self._steps.once(name, delay.total_seconds(), _TIME, until)
        async with self.waiting():
            await self._until(end)

    async def save(self, value: object) -> int:
        """Store where the agent is, for a worker that takes the run over; the number of the checkpoint in the run.

        It is stored when this returns, as JSON. The newest one of the run counts. Raises Refusal `payload_too_large`.
        """
        return await self._checkpoints.save(json_text(value, "value"))

    async def restore(self, type_: type[M] = object) -> M | None:  # type: ignore[assignment]
        """What was saved last in this run, on whatever worker; None if nothing was.

        Raises Refusal `invalid_value` for what is not of the type.
        """
        shape = shape_of(type_, "validation")
        text = await self._checkpoints.newest()
        return None if text is None else _read(shape, text, "what the run has saved", "state_json")

    async def start_child(
        self, agent: str, input: object, *, title: str = "", cancel_with_parent: bool = True
    ) -> Child:
        """Start a run of another agent: `child = await run.start_child("quote", Ask(item))`, and later
        `await child.result(Answer)`.

        It is a run of its own, which belongs to the same person and org. It is started once, whatever dies.
        `cancel_with_parent`: it is canceled when this run is to end, or has ended. Raises Refusal `limit_reached`, and
        `invalid_value` for an input that no worker takes.
        """
        check_text_arguments(agent=agent, title=title)
        check_flag(cancel_with_parent, "cancel_with_parent")
        spec = pb.RunSpec(adapter=agent, title=title, agent=pb.AgentSpec(input_json=json_text(input, "input")))
        check_rules(spec)
        return await self._children.start(spec, cancel_with_parent=cancel_with_parent)

    async def approve(self, title: str, *, detail: str = "", deadline: timedelta | None = None) -> bool:
        """Ask a person for a yes, and wait for the answer: `if not await run.approve("Order for 12.50?"): …`.

        Asked once for the run, whatever dies; the first answer counts. When the deadline is over it is no.
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
        """Ask a person to choose: the id of an option. `options`: ids, or ids with what people are shown.

        When the deadline is over it is `default`, or "" without one.
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
        """Ask a person for a text. When the deadline is over it is None."""
        check_text_arguments(title=title, detail=detail)
        request = pb.RequestOpened(kind=pb.REQUEST_KIND_TEXT, title=title, detail=detail)
        settled = await self._settled(request, deadline)
        return settled.text if settled.answered_by else None

    async def receive(self, type_: type[M] = object) -> M:  # type: ignore[assignment]
        """The next thing that somebody says to the run (`oa run send`, `RunHandle.send`); waits for one.

        Every input is heard once, in order; after a takeover from the first one on, since the function begins anew.
        Raises Refusal `invalid_value` for one that is not of the type.
        """
        shape = shape_of(type_, "validation")
        text = None
        while text is None:  # of several that wait one takes it
            async with self.waiting():
                await self._inbox.arrival()
            text = self._inbox.take()
        return _read(shape, text, "an input of the run", "input_json")

    async def inbox(self, type_: type[M] = object) -> AsyncIterator[M]:  # type: ignore[assignment]
        """All that is said to the run, as it comes, without end: `async for message in run.inbox(str)`."""
        while True:
            yield await self.receive(type_)

    async def _settled(self, request: pb.RequestOpened, deadline: timedelta | None) -> Settled:
        async with self.waiting():
            return await self._requests.settle(request, deadline)

    async def _until(self, end: datetime) -> None:
        await asyncio.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()))


def _read(shape: Shape[M], text: str, what: str, field: str) -> M:
    try:
        return shape.read(text)
    except Misfit as misfit:
        raise Refusal(
            "invalid_value", f"{what} does not fit ({misfit}); use one of the agent's type", field=field
        ) from None


async def _utc_now() -> datetime:
    return datetime.now(UTC)


async def _chance() -> float:
    return random.random()


_TIME = Shape(datetime, "validation")
_NUMBER = Shape(float, "validation")
