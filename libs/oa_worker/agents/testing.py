"""Agents without a server: run one in memory, and let its worker die wherever that can matter.

    played = await play(support, Ask("why"))
    assert played.result == Answer("because")

    async for played in play_with_deaths(support, Ask("why")):
        assert played.result == Answer("because")       # whatever died, and when

The log is a list, and nothing is sent anywhere. Functions that the agent itself calls are really called.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from oa_runlog.fingerprint import text_sha256
from oa_wire.given import check_count, check_function, check_named_texts
from oa_wire.shapes import Misfit, Shape, json_text
from oa_worker.agents.adapter import AgentAdapter
from oa_worker.agents.declared import declared_input, declared_output
from oa_worker.agents.failures import AgentExit, AgentFailure, cause_in, words_of
from oa_worker.agents.limits import DEFAULT_AGENT_LIMITS, AgentLimits
from oa_worker.agents.primitives.takeover.past import QUIET_TURNS
from oa_worker.agents.run import Run
from oa_worker.sdk.adapter import Assignment, CancelSignal
from oa_worker.sdk.authority_clock import own_now
from oa_worker.sdk.runs.appender import log_is_closed
from oa_worker.sdk.runs.execution import as_stored, failed, finish_of, refused
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1.worker_service_pb2 import HeldLease, StartChildRequest

if TYPE_CHECKING:
    from typing_extensions import TypeForm

In = TypeVar("In")
Out = TypeVar("Out")
_logger = logging.getLogger("oa_worker.agents")
RUN_ID = "run_00000000000000000000000000"


@dataclass(frozen=True)
class Played(Generic[Out]):
    """A run that was played to its end."""

    finish: pb.RunFinished
    """How it ended."""
    events: list[pb.EventBody]
    """The events that its workers emitted, without the finish."""
    attempts: int
    """How many workers it took."""
    output: Shape[Out]

    @property
    def result(self) -> Out:
        """The agent's result, as a caller reads it. Raises AssertionError, with what is known about the end, if the run
        did not succeed, or if no caller can read the result as the agent's type."""
        if self.finish.outcome != pb.RUN_OUTCOME_SUCCEEDED:
            raise AssertionError(f"the run failed: {self.finish.reason}: {self.finish.message}")
        try:
            return self.output.read(self.finish.result_json)
        except Misfit as misfit:
            raise AssertionError(f"the result can't be read as the agent's type: {misfit}") from None

    @property
    def steps(self) -> list[str]:
        """Names of the steps, in the order in which they were done."""
        return [event.step_completed.name for event in self.events if event.HasField("step_completed")]

    @property
    def saved(self) -> list[Any]:
        """The values that were saved, in order, over all attempts, as plain JSON values."""
        saved = [event.checkpoint_saved for event in self.events if event.HasField("checkpoint_saved")]
        return [json.loads(one.state_json) for one in saved]

    @property
    def text(self) -> str:
        """Everything that the agent said as an assistant, over all attempts."""
        return b"".join(event.text_delta.data for event in self.events).decode()


async def play(
    agent: Callable[[Run[In]], Coroutine[Any, Any, Out]],
    value: In,
    *,
    inputs: Sequence[object] = (),
    answers: Mapping[str, str] | None = None,
    children: Mapping[str, object] | None = None,
    death: int | None = None,
    cancel: CancelSignal | None = None,
    limits: AgentLimits = DEFAULT_AGENT_LIMITS,
    input: TypeForm[Any] | None = None,
    output: TypeForm[Any] | None = None,
) -> Played[Out]:
    """Run an agent with an input to its end. The input is sent as JSON and read as a value of the type that the
    function's annotation states (`Run[Ask]`), as a worker reads it. `input` and `output`: the function's types, if its
    annotations don't state them; without any, the input's type is that of the value.

    `inputs`: what people say to the run, all of it before the run starts.
    An agent that waits for more of them waits forever, and its log says so.
    `answers`: title of a request -> its answer, an option or a text; a request without an answer expires at once.
    `children`: agent -> the result of its runs that this run starts, or an exception with which they fail.

    `death`: where the first worker dies. 0 is just before the first event is stored, 1 just after it, 2 before the
    second one, and so on; another worker takes over. `cancel`: requests the end of the run while it plays.
    """
    check_function(agent, "agent")
    check_named_texts(answers or {}, "answers")
    if isinstance(inputs, str | bytes):
        raise Refusal("invalid_value", "inputs must be several; give a list or tuple of them", field="inputs")
    if death is not None:
        check_count(death, "death")
    taken = input if input is not None else declared_input(agent)
    returned = output if output is not None else declared_output(agent)
    shapes = Shape(type(value) if taken is None else taken, "validation"), Shape(returned, "serialization")
    adapter = AgentAdapter("agent", agent, shapes, "", limits)
    spec = pb.RunSpec(adapter="agent", agent=pb.AgentSpec(input_json=json_text(value, "value")))
    said = [json_text(one, "inputs") for one in inputs]
    log = _Log(death, said, answers or {}, children or {}, limits.max_result_bytes)
    for attempt in (1, 2):
        finish = await log.attempt(adapter, Assignment(RUN_ID, attempt, attempt, spec, cancel or CancelSignal()))
        if finish is not None:
            return Played(finish, log.events, attempt, Shape(returned, "validation"))
    raise AssertionError("the second worker does not die")


async def play_with_deaths(
    agent: Callable[[Run[In]], Coroutine[Any, Any, Out]],
    value: In,
    *,
    inputs: Sequence[object] = (),
    answers: Mapping[str, str] | None = None,
    children: Mapping[str, object] | None = None,
    limits: AgentLimits = DEFAULT_AGENT_LIMITS,
    input: TypeForm[Any] | None = None,
    output: TypeForm[Any] | None = None,
) -> AsyncIterator[Played[Out]]:
    """Run an agent once for each place where its first worker can die, and once without a death. The arguments are
    those of `play`.
    """
    death = 0
    how: dict[str, Any] = {"inputs": inputs, "answers": answers, "children": children, "limits": limits}
    how |= {"input": input, "output": output}
    while (played := await play(agent, value, death=death, **how)).attempts > 1:
        yield played
        death += 1
    yield played


class _Log:
    """The log of one run. The first worker dies at its `death`-th chance; then it can store nothing more."""

    def __init__(
        self,
        death: int | None,
        inputs: Sequence[str],
        answers: Mapping[str, str],
        children: Mapping[str, object],
        max_result_bytes: int,
    ) -> None:
        self._max_result_bytes = max_result_bytes
        self._children = children
        self.events: list[pb.EventBody] = []
        self._times: list[Timestamp] = []
        self._inputs = [pb.EventBody(input_received=pb.InputReceived(input_json=text)) for text in inputs]
        self._answers = answers
        self._began = _now()
        self._death = death
        self._chances = 0

    async def attempt(self, adapter: AgentAdapter[Any, Any], assignment: Assignment) -> pb.RunFinished | None:
        """Let one worker execute the run, and return the finish; None if the worker died."""
        died, over, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        lost = Refusal("worker_lost", "this worker has died; another one takes the run")

        async def emit(event: pb.EventBody) -> None:
            for stores in (False, True):
                if died.is_set():
                    raise lost
                if ended.is_set():
                    raise log_is_closed()
                if stores:
                    self._append(event)
                    self._answer(event)
                if self._dies():
                    died.set()
                    await over.wait()  # nothing more happens in a dead process
                    raise lost

        async def start_child(request: StartChildRequest) -> str:
            child_id, spec = request.child_id, request.spec
            if spec.adapter not in self._children:
                text = f"there is no result of {spec.adapter!r}; give it in `children`"
                raise Refusal("invalid_value", text, field="spec.adapter")
            await _in_a_moment()
            child = pb.ChildStarted(
                child_id=child_id,
                run_id=f"run_{int(child_id[1:]):026d}",
                adapter=spec.adapter,
                input_sha256=text_sha256(spec.agent.input_json),
                has_branches=request.has_branches,
            )
            if pb.EventBody(child_started=child) not in self.events:
                await emit(pb.EventBody(child_started=child))
            return child.run_id

        held = replace(assignment, read=self._read, stored=_in_a_moment, start_child=start_child)
        work = asyncio.ensure_future(finish_of(adapter, held, emit))
        dying = asyncio.ensure_future(died.wait())
        try:
            await asyncio.wait({work, dying}, return_when=asyncio.FIRST_COMPLETED)
            if died.is_set():
                return None
            ended.set()
            return as_stored(work.result(), self._max_result_bytes)
        finally:
            for task in (work, dying):
                task.cancel()
            await _in_a_moment()
            over.set()  # for whatever the cancel has not reached: threads, for example, would wait forever
            await asyncio.gather(work, dying, return_exceptions=True)

    async def _read(
        self, lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
    ) -> AsyncIterator[bytes]:
        times = [*([self._began] * len(self._inputs)), *self._times]
        numbered = enumerate(zip([*self._inputs, *self.events], times, strict=True), start=1)
        found = [
            pb.RunEvent(run_id=lease.run_id, seq=seq, recorded_time=time, body=event).SerializeToString()
            for seq, (event, time) in numbered
            if seq > after_seq and (_type_of(event) in types or not types)
        ]
        if not found and "input.received" in types:
            _logger.warning("the agent waits for an input, and there is none left; give one more in `inputs`")
        for data in found[-1:] if newest_only else found:
            yield data

    def _append(self, event: pb.EventBody) -> None:
        self.events.append(event)
        self._times.append(_now())

    def _answer(self, event: pb.EventBody) -> None:
        """Answer a request, or end a child, at once, so that nobody waits for it."""
        if event.HasField("child_started"):
            finish = self._end_of(event.child_started.adapter)
            finished = pb.ChildFinished(run_id=event.child_started.run_id, finish=finish)
            self._append(pb.EventBody(child_finished=finished))
        opened = event.request_opened
        if not event.HasField("request_opened"):
            return
        answer = self._answers.get(opened.title)
        if answer is None:
            expired = pb.RequestExpired(request_id=opened.request_id, option=opened.default_option)
            self._append(pb.EventBody(request_expired=expired))
            return
        options = ["yes", "no"] if opened.kind == pb.REQUEST_KIND_APPROVAL else [one.id for one in opened.options]
        if opened.kind != pb.REQUEST_KIND_TEXT and answer not in options:
            text = f"the answer to {opened.title!r} must be one of {', '.join(options)}; give that in `answers`"
            raise Refusal("invalid_value", text, field="answers")
        said = {"text" if opened.kind == pb.REQUEST_KIND_TEXT else "option": answer}
        answered = pb.RequestAnswered(request_id=opened.request_id, answered_by="usr_test", **said)
        self._append(pb.EventBody(request_answered=answered))

    def _end_of(self, agent: str) -> pb.RunFinished:
        returned = self._children[agent]
        if isinstance(returned, BaseException):
            return _failed_by(returned)
        return pb.RunFinished(outcome=pb.RUN_OUTCOME_SUCCEEDED, result_json=json_text(returned, "children"))

    def _dies(self) -> bool:
        chance, self._chances = self._chances, self._chances + 1
        return chance == self._death


def _failed_by(raised: BaseException) -> pb.RunFinished:
    """The finish of a run whose function raised this, as its worker reports it."""
    error = cause_in(raised)
    if isinstance(error, Refusal):
        return refused(error)
    if isinstance(error, AgentFailure):
        return failed(error.reason, error.message)
    if isinstance(error, SystemExit):
        error = AgentExit(error)
    return failed("agent_error", words_of(error, DEFAULT_AGENT_LIMITS.max_failure_chars))


async def _in_a_moment() -> None:
    """Return as late as an authority answers: the agent's other branches continue meanwhile."""
    for _ in range(QUIET_TURNS):
        await asyncio.sleep(0)


def _now() -> Timestamp:
    now = Timestamp()
    now.FromDatetime(own_now())
    return now


def _type_of(event: pb.EventBody) -> str:
    return (event.WhichOneof("kind") or "").replace("_", ".", 1)
