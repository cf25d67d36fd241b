"""The contents of a recorded run, handed to today's function in the order in which the log got them.

Results are handed over one by one, each when the function does not move any more and has asked for everything that is
before it in the log. So branches that run at the same time come to the same places as they did then, and a function
that asks in another order is noticed: it waits for something that can't come. Nothing here waits by the clock: the
caller gives branches the time to do something by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

from oa_base.clock import ns_of
from oa_base.visible import visible
from oa_runlog.events import (
    ChildFinished,
    ChildStarted,
    InputReceived,
    Outcome,
    RequestAnswered,
    RequestExpired,
    RequestOpened,
    RunEvent,
    RunFinished,
    StepCompleted,
)
from oa_runlog.wire import body_to_wire
from oa_wire.shapes import Misfit
from oa_wire.strict.text import read_json
from oa_worker.agents.primitives import children, requests
from oa_worker.agents.primitives.requests import Settled
from oa_worker.agents.primitives.steps.steps import Step
from oa_worker.agents.primitives.takeover.numbers import Numbers
from oa_worker.agents.replays.recorded import RecordedRun
from oa_worker.sdk.adapter import News
from openagents.runtime.v1 import event_pb2 as pb

_END = 2**63
"""Beyond every seq."""
_SHOWN_CHARS = 200
"""Maximum number of characters shown of a result that differs."""
_RAISED = {
    "step": "; or did the step raise when the run was recorded? The log has no result then: say in `raised` what it "
    "raised",
    "request": "; or was the question refused when the run was recorded? The log has nothing of it then: say in "
    "`raised`, under its title, what it raised",
    "child": "; or was the child refused when the run was recorded? The log has nothing of it then: say in `raised`, "
    "under the name of its agent, what `start_child` raised",
}
"""Kinds of things that may have raised without a trace in the log -> what the replay says about that."""
_SLOW = "; or does a branch work by itself for longer than the replay waits? Then give it more time in `patience_ms`"


@dataclass(frozen=True)
class Divergence:
    """The first place where today's function does something other than the log has."""

    seq: int
    """Seq of the event in the log; 0 if the log has none at this place."""
    ordinal: int
    """Number of the step, the request or the input that was asked for; 0 for the run's end."""
    recorded: str
    """What the log has."""
    asked: str
    """What was asked for, or done."""
    advice: str = ""

    def __str__(self) -> str:
        return f"seq {self.seq}: the log has {self.recorded}; now it is {self.asked}{self.advice}"


@dataclass(frozen=True)
class _Asked:
    """Something that the function waits for. `until_seq`: where the log has it, None if it does not; half more for what
    comes after an event and before the next."""

    text: str
    ordinal: int
    until_seq: float | None
    kind: str
    key: str
    """Unique key of a step, a request or a child; empty for anything else."""
    future: asyncio.Future[None]

    @property
    def is_beyond(self) -> bool:
        """Whether the log does not have it."""
        return self.until_seq is None


class History:
    """One recorded run, and what today's function has asked for so far. `news` is told of all that it asks for."""

    def __init__(self, recorded: RecordedRun, raised: Mapping[str, BaseException]) -> None:
        """`raised`: name of a step, title of a question or agent of a child -> the exception that it raised. This is
        for things that the log does not have.
        """
        self._recorded = recorded
        self._raised = raised
        self._cancel = recorded.cancel
        self._steps: dict[int, tuple[int, StepCompleted]] = {}
        self._opened: dict[str, tuple[int, pb.RequestOpened]] = {}
        self._settled: dict[str, tuple[int, Settled]] = {}
        self._inputs: list[tuple[int, str]] = []
        self._children: dict[str, tuple[int, pb.ChildStarted]] = {}
        self._ended: dict[str, tuple[int, RunFinished]] = {}
        self._due: deque[tuple[int, str, str]] = deque()
        """Things that have to be asked for, in the order of the log: seq, key, text."""
        self._begun: set[str] = set()
        self._waiting: list[_Asked] = []
        self.has_branches = False
        """Whether several tasks of the function ask, as far as the log says, and as far as seen since."""
        self._own_task: asyncio.Task[Any] | None = None
        self.news = News()
        self.divergence: Divergence | None = None
        self.stopped = ""
        """The thing that the function waits for, once the log has no more of it."""
        for event in recorded.events:
            self._note(event)
        asked_for = {seq for seq, _, _ in self._due}
        self._times = [(event.seq, event.recorded_ns) for event in recorded.events if event.seq in asked_for]
        """The seqs of all events that have to be asked for, and when each was recorded."""
        self._step_numbers = Numbers({n: (step.name, step.fingerprint) for n, (_, step) in self._steps.items()})
        self._request_numbers = requests.known(opened for _, opened in self._opened.values())
        self._child_numbers = children.known(started for _, started in self._children.values())
        self._last = {
            "step": max(self._steps, default=0),
            "request": _last_number(self._opened),
            "child": _last_number(self._children),
        }
        """Kinds of things that are numbered -> the last number that the log has."""

    @property
    def ended_children(self) -> Collection[str]:
        """Ids of the children whose ends the log has."""
        return self._ended.keys()

    @property
    def input_count(self) -> int:
        """How many inputs the log has."""
        return len(self._inputs)

    def begins_in(self, task: asyncio.Task[Any]) -> None:
        """Note the function's own task: other tasks that ask are branches."""
        self._own_task = task

    def _note(self, event: RunEvent) -> None:
        match event.body:
            case StepCompleted() as step:
                self.has_branches |= step.has_branches
                self._steps[step.ordinal] = event.seq, step
                self._due.append((event.seq, f"step {step.ordinal}", _step_text(step.ordinal, step.name)))
            case RequestOpened() as opened:
                self.has_branches |= opened.has_branches
                self._opened[opened.request_id] = event.seq, body_to_wire(opened).request_opened
                text = _request_text(opened.request_id, opened.title)
                self._due.append((event.seq, f"request {opened.request_id}", text))
            case RequestAnswered(request_id, option, text, answered_by):
                self._settled[request_id] = event.seq, Settled(option, text, answered_by)
            case RequestExpired(request_id, option):
                self._settled[request_id] = event.seq, Settled(option, "", "")
            case InputReceived(input_json=text):
                self._inputs.append((event.seq, text))
            case ChildStarted() as child:
                self.has_branches |= child.has_branches
                self._children[child.child_id] = event.seq, body_to_wire(child).child_started
                self._due.append((event.seq, f"child {child.child_id}", _child_text(child.child_id, child.adapter)))
            case ChildFinished(run_id, finish):
                self._ended[run_id] = event.seq, finish

    async def step(self, step: Step, *, has_branches: bool) -> str:
        """Return the stored result of a step. Raises the exception that `raised` has for it."""
        ordinal = self._step_numbers.found_or_free(step.ordinal, step.what, has_branches=has_branches)
        step = replace(step, ordinal=ordinal)
        key, text = f"step {ordinal}", _step_text(ordinal, step.name)
        seq, recorded = self._steps.get(ordinal, (None, None))
        if recorded is None or seq is None:
            self._raise_as_then(step.name)
            await self._wait("step", key, text, step.ordinal, None)
            raise AssertionError("nothing ends this wait")
        if recorded.name != step.name:
            await self._ends(Divergence(seq, step.ordinal, _step_text(step.ordinal, recorded.name), text))
        if recorded.fingerprint != step.fingerprint:
            await self._ends(Divergence(seq, step.ordinal, text, f"{text} with other arguments"))
        await self._wait("step", key, text, step.ordinal, seq)
        return recorded.result_json

    def misfit(self, step: Step, misfit: Misfit) -> None:
        """Note that the stored result of a step is not of the type that the function states now."""
        text = _step_text(step.ordinal, step.name)
        asked = f"{text} with a result of another type ({misfit})"
        self._diverge(Divergence(self._steps[step.ordinal][0], step.ordinal, text, asked))

    async def request(self, asked: pb.RequestOpened, wanted: int, *, has_branches: bool) -> Settled:
        """Return how a request was settled. `wanted`: its number in the order of asking. Raises what `raised` has for
        it.
        """
        ordinal = self._request_numbers.found_or_free(wanted, requests.what_of(asked), has_branches=has_branches)
        name = requests.id_of(ordinal)
        text = _request_text(name, asked.title)
        seq, recorded = self._opened.get(name, (None, None))
        if recorded is not None and seq is not None and not requests.is_same(asked, recorded):
            other = "" if recorded.title != asked.title else " of another kind or with other options"
            await self._ends(Divergence(seq, ordinal, _request_text(name, recorded.title), f"{text}{other}"))
        if recorded is None:
            self._raise_as_then(asked.title)
        await self._wait("request", f"request {name}", text, ordinal, seq)
        settled_seq, settled = self._settled.get(name, (None, None))
        await self._wait("answer", "", f"the answer to {text}", ordinal, settled_seq)
        assert settled is not None  # else nothing ends the wait
        return settled

    async def child(self, spec: pb.RunSpec, wanted: int, *, has_branches: bool) -> str:
        """Return the id of the run that was started as this child. `wanted`: its number in the order of starting.
        Raises what `raised` has for it.
        """
        ordinal = children.found(self._child_numbers, wanted, spec, has_branches=has_branches)
        ordinal = self._child_numbers.free(wanted) if ordinal is None else ordinal
        child_id = children.id_of(ordinal)
        text = _child_text(child_id, spec.adapter)
        seq, recorded = self._children.get(child_id, (None, None))
        if recorded is not None and seq is not None and not children.is_same(spec, recorded):
            other = "" if recorded.adapter != spec.adapter else " with another input"
            await self._ends(Divergence(seq, ordinal, _child_text(child_id, recorded.adapter), f"{text}{other}"))
        if recorded is None:
            self._raise_as_then(spec.adapter)
        await self._wait("child", f"child {child_id}", text, ordinal, seq)
        assert recorded is not None  # else nothing ends the wait
        return recorded.run_id

    async def end_of_child(self, run_id: str) -> RunFinished:
        """Return how a child ended."""
        seq, finish = self._ended.get(run_id, (None, None))
        await self._wait("end", "", f"the end of {run_id}", 0, seq)
        assert finish is not None  # else nothing ends the wait
        return finish

    async def input(self, number: int) -> str:
        """Return the input with this number, from 1, as JSON text."""
        seq, text = self._inputs[number - 1] if number <= len(self._inputs) else (None, "")
        await self._wait("input", "", f"input {number}", number, seq)
        return text

    async def time(self, end: datetime) -> None:
        """Return when the wait for this time is over: after what other branches had asked for before it, or else at
        once, because the log goes on after it.

        If the run's end was asked for meanwhile, the wait lasts until the cancel reaches the function.
        """
        end_ns = ns_of(end)
        if self._cancel is not None and self._cancel.recorded_ns < end_ns:
            await self._wait("time", "", "the end of a wait", 0, None)
        elif before := [seq for seq, recorded_ns in self._times if recorded_ns < end_ns]:
            await self._wait("time", "", "the end of a wait", 0, before[-1] + 0.5)

    def _raise_as_then(self, name: str) -> None:
        if name in self._raised:
            raise self._raised[name]

    async def _wait(self, kind: str, key: str, text: str, ordinal: int, seq: float | None) -> None:
        self.has_branches |= asyncio.current_task() is not self._own_task
        asked = _Asked(text, ordinal, seq, kind, key, asyncio.get_running_loop().create_future())
        self._begun.add(key)
        self._waiting.append(asked)
        self.news.tell()
        try:
            await asked.future
        finally:
            self._waiting.remove(asked)
            self.news.tell()

    def hand_over(self, *, times_early: bool = False) -> bool:
        """Give the function, which does not move any more, the next thing that it waits for, if the log has come to
        that. Return whether there was one.

        `times_early`: also the end of a wait to which the log has not come. What was recorded before that time may have
        been asked for after it, if two clocks differ.
        """
        self._forget_what_nobody_waits_for()
        until = [(one, one.until_seq) for one in self._waiting if one.until_seq is not None]
        ready = [one for one, seq in until if seq <= self._next_seq or (times_early and one.kind == "time")]
        if not ready:
            return False
        first = min(ready, key=lambda one: one.until_seq or 0)
        if first.until_seq == self._next_seq:
            self._due.popleft()
        first.future.set_result(None)
        return True

    def _forget_what_nobody_waits_for(self) -> None:
        """Forget things that were begun: the function may have given them up, as `asyncio.timeout` does."""
        keys = {one.key for one in self._waiting}
        while self._due and self._due[0][1] in self._begun - keys:
            self._due.popleft()

    @property
    def _next_seq(self) -> int:
        """Seq of the first event in the log that was not asked for yet."""
        return self._due[0][0] if self._due else _END

    @property
    def may_be_at_work(self) -> bool:
        """Whether a part of the function may do something by itself now. A sole task that waits here does nothing."""
        return self.has_branches or not self._waiting

    def takes_cancel(self) -> bool:
        """Return whether the function has come to the place where somebody asked for the run's end; true only once."""
        if self._cancel is None or self._cancel.seq > self._next_seq:
            return False
        self._cancel = None
        return True

    def judge(self) -> bool:
        """Return whether the function, which does not move any more, waits for something of the run. If so,
        `divergence` says what the log has instead, or `stopped` that the log has no more."""
        if not self._waiting:
            return False
        asked = min(self._waiting, key=_rank)
        end = self._recorded.end
        if self._may_have_raised(asked) or (not self._due and end is None):
            self.stopped = asked.text
            return True
        seq, recorded = (self._due[0][0], self._due[0][2]) if self._due else _end_of(self._recorded)
        self._diverge(Divergence(seq, asked.ordinal, recorded, asked.text, _advice(asked, self.has_branches)))
        return True

    def _may_have_raised(self, asked: _Asked) -> bool:
        """Whether it may have begun and raised, or been refused, when the run was recorded; the log lacks it then."""
        if asked.kind not in self._last or not asked.is_beyond:
            return False
        end = self._recorded.end
        has_failed = end is not None and isinstance(end.body, RunFinished) and end.body.outcome is Outcome.FAILED
        return asked.ordinal < self._last[asked.kind] or (has_failed and not self._due)

    def ended(self, finish: RunFinished | None) -> None:
        """Judge the function's end: it must have asked for everything that the log has, and ended as it did then.
        `finish` is None for a function that goes on by itself after its cancel."""
        now = "a function that ignores its cancel" if finish is None else _finish_text(finish)
        end = self._recorded.end
        unasked = [(seq, text) for seq, key, text in self._due if key not in self._begun]
        if unasked:
            seq, recorded = unasked[0]
            self._diverge(Divergence(seq, 0, recorded, now))
        elif end is not None and isinstance(end.body, RunFinished) and not _is_alike(finish, end.body):
            self._diverge(Divergence(end.seq, 0, _finish_text(end.body), now))
        elif finish is None:
            self.stopped = "the end of the function, which ignores its cancel"

    async def _ends(self, divergence: Divergence) -> NoReturn:
        """Diverge, and give the function no answer: it would continue with a result that is not its own."""
        self._diverge(divergence)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nothing ends this wait")

    def _diverge(self, divergence: Divergence) -> None:
        self.divergence = self.divergence or divergence
        self.news.tell()


def _rank(asked: _Asked) -> tuple[bool, bool]:
    """What the log does not have comes first. An input comes last, because a branch may listen for one more without an
    end, and so does a time: the run's cancel ends the wait for it."""
    return asked.is_beyond and asked.kind in ("input", "time"), not asked.is_beyond


def _advice(asked: _Asked, has_branches: bool) -> str:
    if asked.is_beyond:
        return _RAISED.get(asked.kind, "")
    return _SLOW if has_branches else ""


def _end_of(recorded: RecordedRun) -> tuple[int, str]:
    end = recorded.end
    assert end is not None
    assert isinstance(end.body, RunFinished)
    return end.seq, _finish_text(end.body)


def _last_number(names: Iterable[str]) -> int:
    """The highest number in names such as `c1`; 0 without one."""
    return max((int(name[1:]) for name in names if name[1:].isdecimal()), default=0)


def _is_alike(now: RunFinished | None, then: RunFinished) -> bool:
    """Whether both ends are alike. The messages may differ: they are for people."""
    return now is not None and (now.outcome, now.reason, _value(now.result_json)) == (
        then.outcome,
        then.reason,
        _value(then.result_json),
    )


def _value(result_json: str) -> object:
    return _kept_apart(read_json(result_json)) if result_json else None


def _kept_apart(value: object) -> object:
    """The value with its truths as something else than numbers: Python takes `true` for 1."""
    match value:
        case bool():
            return (value,)
        case dict():
            return {name: _kept_apart(each) for name, each in value.items()}
        case list():
            return [_kept_apart(each) for each in value]
        case _:
            return value


def _finish_text(finish: RunFinished) -> str:
    """How a run ended, in a few words."""
    why = f": {finish.message}" if finish.reason and finish.message else ""
    said = f"{finish.outcome} {finish.reason or finish.result_json}{why}".strip()
    shown = said if len(said) <= _SHOWN_CHARS else said[: _SHOWN_CHARS - 1] + "…"
    return f"the end of the run, {visible(shown)}"


def _step_text(ordinal: int, name: str) -> str:
    return f"step {ordinal}, {name!r}"


def _child_text(child_id: str, agent: str) -> str:
    return f"child {child_id}, {agent!r}"


def _request_text(request_id: str, title: str) -> str:
    return f"request {request_id}, {title!r}"
