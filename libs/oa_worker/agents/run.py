"""One run, as its function sees it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value

from oa_base.refusal import Refusal
from oa_wire.rules import check_rules
from oa_wire.shapes import Misfit, Shape, plain_json
from oa_worker.agents.failures import words_of
from oa_worker.agents.inbox import Inbox
from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.requests import Requests, options_of
from oa_worker.agents.steps import Steps, arguments_of, called, result_shape
from oa_worker.sdk.adapter import Assignment, Emit
from openagents.runtime.v1 import event_pb2 as pb

In_co = TypeVar("In_co", covariant=True)
P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")

_LOGGER = logging.getLogger("oa_worker.agents")


class _Log:
    """The run's log, as far as a worker's event is right by itself: what is refused is refused where it was made."""

    def __init__(self, emit: Emit, limits: AgentLimits) -> None:
        self._emit = emit
        self.limits = limits

    async def append(self, event: pb.EventBody) -> None:
        """Append in order. Raises Refusal for an event that no authority would take."""
        check_rules(event)
        size, most = event.ByteSize(), self.limits.max_event_bytes
        if event.WhichOneof("kind") != "text_delta" and size > most:
            text = f"the event has {size} bytes; say at most {most} at once"
            raise Refusal("payload_too_large", text, field=event.WhichOneof("kind") or "")
        await self._emit(event)


class Assistant:
    """What the agent says: pieces as they come, then the message that they make.

    A block that ends with an exception makes no message; its pieces stay.
    """

    def __init__(self, log: _Log) -> None:
        self._log = log
        self._pieces: list[str] = []
        self._unsaid: list[str] = []
        self._unsaid_bytes = 0

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(self._pieces)

    async def write(self, text: str) -> None:
        """Say a piece of it; it goes out at once. Waits while the log is behind."""
        if "\0" in text:
            raise Refusal("invalid_value", "text must not hold the character NUL; take it out", field="text")
        most = self._log.limits.max_message_bytes
        for start in range(0, len(text), most // 4):  # a character has at most four bytes
            piece = text[start : start + most // 4]
            data = piece.encode()
            if self._unsaid_bytes + len(data) > most:
                await self._say()
            await self._log.append(pb.EventBody(text_delta=pb.TextDelta(stream=pb.TEXT_STREAM_ASSISTANT, data=data)))
            self._pieces.append(piece)
            self._unsaid.append(piece)
            self._unsaid_bytes += len(data)

    async def _say(self) -> None:
        """Make a message of what has none yet."""
        text = "".join(self._unsaid)
        self._unsaid, self._unsaid_bytes = [], 0
        if text:
            await self._log.append(pb.EventBody(message=pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, text=text)))

    async def __aenter__(self) -> Assistant:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self._say()


class ToolUse:
    """A call of a tool: recorded at the start of its block, and answered at the end with `result`.

    A block that ends with an exception answers that the tool failed, and with what.
    """

    def __init__(self, log: _Log, call_id: str, name: str, arguments: Mapping[str, object] | None) -> None:
        self._log = log
        self._name = name
        self._arguments = arguments
        self.call_id = call_id
        self.result: object = None
        """What the tool answered: set it within the block."""

    async def __aenter__(self) -> ToolUse:
        call = pb.ToolCall(call_id=self.call_id, name=self._name, arguments=_struct(self._arguments, "arguments"))
        await self._log.append(pb.EventBody(tool_call=call))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        answer = self.result if error is None else words_of(error, self._log.limits.max_failure_chars)
        result = json_format.ParseDict(plain_json(answer, "result"), Value())
        answered = pb.ToolResult(call_id=self.call_id, failed=error is not None, result=result)
        await self._log.append(pb.EventBody(tool_result=answered))


class Run(Generic[In_co]):
    """A run that this worker holds. Everything that it says goes to the run's log, in order, once.

    Every method may raise Refusal: of what can't stand in a log at once, and of everything when the log takes no more.
    """

    def __init__(self, assignment: Assignment, value: In_co, emit: Emit, limits: AgentLimits) -> None:
        self._assignment = assignment
        self._input = value
        self._log = _Log(emit, limits)
        self._calls = itertools.count(1)
        self._steps = Steps(assignment, self._log.append, limits)
        self._inbox = Inbox(assignment)
        self._requests = Requests(assignment, self._log.append)
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

    def assistant(self) -> Assistant:
        """What the agent says: `async with run.assistant() as out: await out.write(…)`."""
        return Assistant(self._log)

    def tool(self, name: str, arguments: Mapping[str, object] | None = None) -> ToolUse:
        """A call of a tool: `async with run.tool("search", {"q": "x"}) as call: call.result = …`."""
        # Unique in the run: no other worker ever has this epoch.
        call_id = f"e{self._assignment.lease_epoch}-c{next(self._calls)}"
        return ToolUse(self._log, call_id, name, arguments)

    @overload
    async def step(self, name: str, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def step(self, name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def step(self, name: str, function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        """Do something once for the run, whatever dies: `quote = await run.step("quote", price_of, item)`.

        The result is stored before it is returned, as JSON of the type that the function's annotation states. After a
        takeover a step that was done returns its stored result; one that was cut off is done again. A function that
        is not `async` runs in a thread. Steps are told apart by their order, name and arguments, which therefore have
        to be the same each time: else the run fails as `step_mismatch`.
        """
        arguments, shape = arguments_of(args, kwargs), result_shape(function)
        return await self._steps.once(name, arguments, shape, lambda: called(function, *args, **kwargs))

    async def now(self) -> datetime:
        """The time, as a step: the same after a takeover. In UTC."""
        return await self._steps.once("now", None, _TIME, _utc_now)

    async def random(self) -> float:
        """A number from 0 to 1, without 1, as a step: the same after a takeover. Not for secrets."""
        return await self._steps.once("random", None, _NUMBER, _chance)

    async def sleep(self, delay: timedelta) -> None:
        """Wait until `delay` after this was first called: a takeover waits for the rest of it only."""

        async def until() -> datetime:
            return datetime.now(UTC) + delay

        end = await self._steps.once("sleep", delay.total_seconds(), _TIME, until)
        await self._until(end)

    async def approve(self, title: str, *, detail: str = "", deadline: timedelta | None = None) -> bool:
        """Ask a person for a yes, and wait for the answer: `if not await run.approve("Order for 12.50?"): …`.

        Asked once for the run, whatever dies; the first answer counts. When the deadline is over it is no.
        """
        request = pb.RequestOpened(kind=pb.REQUEST_KIND_APPROVAL, title=title, detail=detail, default_option="no")
        return (await self._requests.settle(request, deadline)).option == "yes"

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
        request = pb.RequestOpened(
            kind=pb.REQUEST_KIND_CHOICE,
            title=title,
            detail=detail,
            options=options_of(options),
            default_option=default,
        )
        return (await self._requests.settle(request, deadline)).option

    async def ask(self, title: str, *, detail: str = "", deadline: timedelta | None = None) -> str | None:
        """Ask a person for a text. When the deadline is over it is None."""
        request = pb.RequestOpened(kind=pb.REQUEST_KIND_TEXT, title=title, detail=detail)
        settled = await self._requests.settle(request, deadline)
        return settled.text if settled.answered_by else None

    async def receive(self, type_: type[M] = object) -> M:  # type: ignore[assignment]
        """The next thing that somebody says to the run (`oa run send`, `RunHandle.send`); waits for one.

        Every input is heard once, in order; after a takeover from the first one on, since the function begins anew.
        Raises Refusal `invalid_value` for one that is not of the type.
        """
        text = await self._inbox.next()
        try:
            return Shape(type_ if type_ is not object else cast("type[M]", Any), "validation").read(text)
        except Misfit as misfit:
            message = f"an input of the run does not fit ({misfit}); send one of the agent's type"
            raise Refusal("invalid_value", message, field="input_json") from None

    async def inbox(self, type_: type[M] = object) -> AsyncIterator[M]:  # type: ignore[assignment]
        """All that is said to the run, as it comes, without end: `async for message in run.inbox(str)`."""
        while True:
            yield await self.receive(type_)

    async def usage(self, model: str = "", *, input: int = 0, output: int = 0, cached: int = 0) -> None:
        """Tokens that were used since the last report; `cached` of the input came from a cache."""
        usage = pb.Usage(model=model, input_tokens=input, output_tokens=output, cached_input_tokens=cached)
        await self._log.append(pb.EventBody(usage=usage))

    async def verification(self, name: str, *, passed: bool, detail: str = "") -> None:
        """The result of a check that the agent made of its own work."""
        checked = pb.Verification(name=name, passed=passed, detail=detail)
        await self._log.append(pb.EventBody(verification=checked))

    async def emit(self, type: str, data: Mapping[str, object] | None = None) -> None:
        """An event of your own type, for example "acme.progress"."""
        await self._log.append(pb.EventBody(custom=pb.Custom(type=type, data=_struct(data, "data"))))

    async def _until(self, end: datetime) -> None:
        await asyncio.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()))


async def _utc_now() -> datetime:
    return datetime.now(UTC)


async def _chance() -> float:
    return random.random()


_TIME = Shape(datetime, "validation")
_NUMBER = Shape(float, "validation")


def _struct(value: Mapping[str, object] | None, field: str) -> Struct | None:
    if value is None:
        return None
    plain: Any = plain_json(value, field)
    return json_format.ParseDict(plain, Struct())
