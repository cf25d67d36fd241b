"""Today's code against recorded runs: does it still ask for the same things, in the same order?

    for replayed in await replay_folder(worker, "tests/runs"):
        replayed.check()

The function is called in memory, in the same way as by a worker that takes the run over. Everything that it asks of the
run (steps, answers, inputs) comes from the log, and nothing whose result is in the log is called. Everything that the
function says is thrown away. Its other calls are made. While one of several branches waits for what can't come yet, the
others have some time to do something by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from oa_base.refusal import Refusal
from oa_runlog.events import RunFinished
from oa_runlog.wire import encode_body, encode_event, finish_from_wire, finish_to_wire, spec_to_wire
from oa_wire.given import check_count
from oa_wire.rules import check_rules
from oa_wire.shapes import Misfit, Shape
from oa_worker.agents.adapter import AgentAdapter
from oa_worker.agents.declared import declared_input, declared_output
from oa_worker.agents.limits import DEFAULT_AGENT_LIMITS, AgentLimits
from oa_worker.agents.primitives.children import Child, Children
from oa_worker.agents.primitives.ending import check_not_canceling
from oa_worker.agents.primitives.inbox import Inbox
from oa_worker.agents.primitives.requests import Requests, Settled, id_of
from oa_worker.agents.primitives.steps.steps import Step, Steps, fingerprint_of, stored_misfit
from oa_worker.agents.primitives.takeover.past import QUIET_TURNS, Past
from oa_worker.agents.replays.history import Divergence, History
from oa_worker.agents.replays.recorded import RecordedRun
from oa_worker.agents.run import Run
from oa_worker.agents.worker import Worker
from oa_worker.sdk.adapter import Assignment, CancelSignal, Emit
from oa_worker.sdk.runs.execution import as_stored, refused
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1.worker_service_pb2 import HeldLease

if TYPE_CHECKING:
    from typing_extensions import TypeForm

R = TypeVar("R")
Agent = Worker | Callable[[Run[Any]], Coroutine[Any, Any, Any]]
"""A worker with its agents, or one agent's function."""
PATTERN = "*.oareplay"
"""Default pattern for the names of recorded runs in a folder."""


@dataclass(frozen=True)
class Replayed:
    """The result of replaying one recorded run with today's code."""

    recorded: RecordedRun
    divergence: Divergence | None
    """Where it first differs from the log; None if it does not."""
    stopped: str
    """The last thing that it asked for, if the log has no more of that; empty if it came to its end."""

    @property
    def is_same(self) -> bool:
        """Whether it does what the log has, as far as the log goes."""
        return self.divergence is None

    def check(self, *, whole: bool = False) -> None:
        """Raises AssertionError, with the place, if the code diverges. `whole`: also if it did not come to its end."""
        if self.divergence is not None or (whole and self.stopped):
            raise AssertionError(str(self))

    def __str__(self) -> str:
        if self.divergence is not None:
            return f"{self.recorded.source} diverges at {self.divergence}"
        if self.stopped:
            return f"{self.recorded.source} is the same as far as the log goes; it has no result of {self.stopped}"
        return f"{self.recorded.source} is the same"


async def replay(
    agent: Agent,
    recorded: RecordedRun | Path | str,
    *,
    name: str = "",
    input: TypeForm[Any] | None = None,
    output: TypeForm[Any] | None = None,
    raised: Mapping[str, BaseException] | None = None,
    limits: AgentLimits = DEFAULT_AGENT_LIMITS,
    patience_ms: int = DEFAULT_AGENT_LIMITS.past_patience_ms,
) -> Replayed:
    """Call today's code with a recorded run, or the file of one, and say whether it does the same.

    `agent`: a worker, of which the agent that the run names is called, or the function of an agent. With a function,
    `name` is the agent's name, and the run of another agent is refused; `input` and `output` are the function's types
    if its annotations don't state them. `raised`: name of a step, title of a question or agent of a child -> the
    exception that it raised when the run was recorded; the log has nothing of it then. `patience_ms`: how long a branch
    may work by itself, in a thread for example, while other branches wait for what it asks for next; after that, the
    replay judges what it has seen. A function without branches is judged at once. One that goes on by itself after the
    run's cancel reached it is given up after `limits.stop_timeout_ms`, and diverges if it ended when it was recorded.

    Raises Refusal `invalid_value` for the run of another agent, and what `RecordedRun.file` raises for the file.
    """
    check_count(patience_ms, "patience_ms")
    run = recorded if isinstance(recorded, RecordedRun) else RecordedRun.file(recorded)
    adapter = _adapter(agent, run, name, input, output, limits)
    history = History(run, raised or {})
    cancel = CancelSignal()
    spec = spec_to_wire(run.spec)
    assignment = Assignment(run.run_id, run.attempt, run.attempt, spec, cancel, partial(_read, run))
    begin = partial(_ReplayedRun, history)
    work = asyncio.ensure_future(adapter.run(assignment, _unheard, begin))
    try:
        await _until_judged(work, history, cancel, patience_ms / 1000, limits.stop_timeout_ms / 1000)
        if work.done() and history.divergence is None:
            history.ended(_finish(work, limits))
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return Replayed(run, history.divergence, history.stopped)


async def replay_folder(agent: Agent, folder: Path | str, *, pattern: str = PATTERN, **how: Any) -> list[Replayed]:
    """Call `replay` with each file of a folder, in the order of their names; `how` are its arguments.

    Raises FileNotFoundError if no file has such a name, because a test of no run shows nothing.
    """
    return [await replay(agent, path, **how) for path in _files(Path(folder), pattern)]


def _files(folder: Path, pattern: str) -> list[Path]:
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not files:
        raise FileNotFoundError(f"there is no file {pattern} in {folder}; record runs with oa replay save")
    return files


async def _until_judged(
    work: asyncio.Future[Any], history: History, cancel: CancelSignal, patience_s: float, stop_timeout_s: float
) -> None:
    """Return when the function has ended or diverged, waits for something that is not in the log, or has been canceled
    and does nothing about it for `stop_timeout_s`."""
    while await _is_quiet(work, history):
        if history.hand_over():
            continue
        if history.may_be_at_work and await _moves(work, history, patience_s):
            continue
        if history.takes_cancel():
            cancel.request("recorded", 0)
        elif history.hand_over(times_early=True):
            continue
        elif history.judge():
            return
        elif not await _moves(work, history, stop_timeout_s if cancel.requested else None):
            history.ended(None)
            return


async def _is_quiet(work: asyncio.Future[Any], history: History) -> bool:
    """Wait until the function does not move any more. Return False if it has ended or diverged."""
    seen, turns = history.news.count, 0
    while turns < QUIET_TURNS and not work.done() and history.divergence is None:
        await asyncio.sleep(0)
        seen, turns = (seen, turns + 1) if history.news.count == seen else (history.news.count, 0)
    return not work.done() and history.divergence is None


async def _moves(work: asyncio.Future[Any], history: History, within_s: float | None) -> bool:
    """Return whether the function asks for something, gives a wait up, or ends, within this time."""
    seen = history.news.count
    asked = asyncio.ensure_future(history.news.after(seen))
    try:
        await asyncio.wait({work, asked}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
    return work.done() or history.news.count > seen


def _adapter(
    agent: Agent,
    run: RecordedRun,
    name: str,
    input: TypeForm[Any] | None,
    output: TypeForm[Any] | None,
    limits: AgentLimits,
) -> AgentAdapter[Any, Any]:
    of = run.spec.adapter
    if isinstance(agent, Worker):
        known = agent.agents
        if of in known and name in ("", of):
            return known[of]
        names = name or ", ".join(sorted(known)) or "none"
        raise _of_another(run, f"the worker's agents that are to be replayed are {names}")
    if name and name != of:
        raise _of_another(run, f"the function is the agent {name}")
    shapes = Shape(input or _input_of(agent), "validation"), Shape(output or declared_output(agent), "serialization")
    return AgentAdapter(of, agent, shapes, "", limits)


def _of_another(run: RecordedRun, what: str) -> Refusal:
    text = f"{run.source} is a run of the agent {run.spec.adapter}; {what}"
    return Refusal("invalid_value", text, field="recorded", metadata={"agent": run.spec.adapter})


def _input_of(agent: Callable[..., object]) -> Any:
    stated = declared_input(agent)
    if stated is None:
        raise TypeError("the agent's function does not state the type of its input, as in Run[Ask]; give it as `input`")
    return stated


def _finish(work: asyncio.Future[pb.RunFinished], limits: AgentLimits) -> RunFinished:
    try:
        return finish_from_wire(as_stored(work.result(), limits.max_result_bytes))
    except Refusal as refusal:  # as a worker reports it
        return finish_from_wire(refused(refusal))


async def _read(
    run: RecordedRun, lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
) -> AsyncIterator[bytes]:
    """Read what the last attempt found. This is for checkpoints; everything else comes from the history."""
    found = [event for event in run.before_last_attempt if event.seq > after_seq and str(event.type) in types]
    for event in found[-1:] if newest_only else found:
        body = encode_body(event.body)
        yield encode_event(event.run_id, event.seq, event.recorded_ns, event.lease_epoch, body)


async def _unheard(event: pb.EventBody) -> None:
    """Ignore the event. What the function says is not compared: after a takeover it is said again."""


class _ReplayedRun(Run[Any]):
    """A run whose answers all come from a recorded one, in the order of its history."""

    def __init__(self, history: History, assignment: Assignment, value: Any, emit: Emit, limits: AgentLimits) -> None:
        super().__init__(assignment, value, emit, limits)
        self._history = history
        self._past.has_branches = history.has_branches
        self._steps = _ReplayedSteps(history, assignment, self._log.append, limits, self._past)
        self._requests = _ReplayedRequests(history, assignment, self._log.append, self._past)
        self._inbox = _ReplayedInbox(history, assignment, self._past)
        self._children = _ReplayedChildren(history, assignment, self._past)

    def begins_in(self, task: asyncio.Task[Any]) -> None:
        """See Run."""
        super().begins_in(task)
        self._history.begins_in(task)

    async def _until(self, end: datetime) -> None:
        await self._history.time(end)


class _ReplayedSteps(Steps):
    def __init__(self, history: History, *of_a_run: Any) -> None:
        super().__init__(*of_a_run)
        self._history = history

    async def once(self, name: str, arguments: object, shape: Shape[R], do: Callable[[], Coroutine[Any, Any, R]]) -> R:
        self._past.note_asker()
        self._last_ordinal += 1
        step = Step(self._last_ordinal, name, fingerprint_of(arguments))
        text = await self._history.step(step, has_branches=self._past.has_branches)
        try:
            return shape.read(text)
        except Misfit as misfit:
            self._history.misfit(step, misfit)
            raise stored_misfit(step, misfit) from None


class _ReplayedRequests(Requests):
    def __init__(self, history: History, *of_a_run: Any) -> None:
        super().__init__(*of_a_run)
        self._history = history

    async def settle(self, request: pb.RequestOpened, within: timedelta | None) -> Settled:
        wanted = self._next()
        request.request_id = id_of(wanted)
        check_rules(request)
        return await self._history.request(request, wanted, has_branches=self._has_branches())


class _ReplayedChildren(Children):
    def __init__(self, history: History, *of_a_run: Any) -> None:
        super().__init__(*of_a_run)
        self._history = history

    async def start(self, spec: pb.RunSpec, *, cancel_with_parent: bool) -> Child:
        self._past.note_asker()
        self._asked += 1
        wanted = self._asked
        return Child(self, await self._history.child(spec, wanted, has_branches=self._past.has_branches))

    async def finish_of(self, run_id: str) -> pb.RunFinished:
        if run_id not in self._history.ended_children:
            await check_not_canceling(self._assignment)
        return finish_to_wire(await self._history.end_of_child(run_id))


class _ReplayedInbox(Inbox):
    def __init__(self, history: History, assignment: Assignment, past: Past) -> None:
        super().__init__(assignment, past)
        self._history = history
        self._heard = 0
        self._waiting = 0

    async def arrival(self) -> None:
        if self._heard + self._waiting >= self._history.input_count:
            await check_not_canceling(self._assignment)
        self._waiting += 1
        try:
            text = await self._history.input(self._heard + self._waiting)
        finally:
            self._waiting -= 1
        self._heard += 1
        self._unheard.append((0, text))
