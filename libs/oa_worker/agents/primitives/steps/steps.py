"""Steps: actions that an agent performs once for its run, no matter which process dies.

A step that is done is in the run's log with its result. A worker that takes the run over calls the agent's function
from its start; each step that was done returns its result from the log (`past` determines when), and the first one that
was not done is done now. The function must therefore ask for the same steps in the same order: anything that may differ
between two calls (a time, a random number, an answer from elsewhere) belongs in a step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from oa_base.refusal import Refusal
from oa_wire.given import check_text
from oa_wire.rules import check_rules
from oa_wire.shapes import Misfit, Shape, iterator_part, plain_json, shape_of
from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.primitives.steps.within import check_outside_step, within_step
from oa_worker.agents.primitives.takeover.numbers import Numbers
from oa_worker.agents.primitives.takeover.past import Past
from oa_worker.agents.signatures import returned_by
from oa_worker.sdk.adapter import Assignment, Emit
from openagents.runtime.v1 import event_pb2 as pb

R = TypeVar("R")
_SHAPES: WeakKeyDictionary[Callable[..., object], Shape[Any]] = WeakKeyDictionary()
"""Functions of steps -> the shapes of their results."""


@dataclass(frozen=True)
class Step:
    """One step as it is asked for, or as it was done. `fingerprint`: SHA-256 over its arguments."""

    ordinal: int
    name: str
    fingerprint: bytes

    @property
    def what(self) -> tuple[str, bytes]:
        """Distinguishes the step from others."""
        return self.name, self.fingerprint


@dataclass(frozen=True)
class _Done:
    """A step that is in the log."""

    step: Step
    event: pb.RunEvent


class Steps:
    """The steps of one run on this worker."""

    def __init__(self, assignment: Assignment, append: Emit, limits: AgentLimits, past: Past) -> None:
        self._assignment = assignment
        self._past = past
        self._append = append
        self._limits = limits
        self._last_ordinal = 0
        self._done: dict[int, _Done] = {}
        self._numbers: Numbers[tuple[str, bytes]] | None = None

    async def once(self, name: str, arguments: object, shape: Shape[R], do: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Return the result of a step: from the log if it was done, else from `do`, once that is stored.

        Steps are numbered in the order in which they are begun. Raises Refusal `step_mismatch` for a step other than
        the one that the log has at this place, or for a stored result of another type than the shape's, `invalid_value`
        within another step and for a new result that is not of the shape's type, and whatever `do` raises: then the
        step was not done, and is done again after a takeover.

        Branches may begin steps in a different order after a takeover, depending on what they do by themselves. With
        branches, a step is therefore found by its name and arguments, wherever it is in the log.
        """
        check_outside_step(f"step {name!r}")
        self._past.note_asker()
        self._last_ordinal += 1
        step = Step(self._last_ordinal, name, fingerprint_of(arguments))
        numbers = await self._read()
        recorded = numbers.found(step.ordinal, step.what, has_branches=self._past.has_branches)
        if recorded is None:
            await self._past.over()
            step = replace(step, ordinal=numbers.free(step.ordinal))
            result = await within_step(name, do())
            text = _written(step, shape, result)
            size, max_bytes = len(text.encode()), self._limits.max_step_bytes
            if size > max_bytes:
                advice = f"return at most {max_bytes}, or where it is stored"
                message = f"the result of step {name!r} has {size} bytes; {advice}"
                raise Refusal("payload_too_large", message, field="result_json")
            completed = pb.StepCompleted(
                ordinal=step.ordinal,
                name=name,
                fingerprint=step.fingerprint,
                result_json=text,
                has_branches=self._past.has_branches,
            )
            await self._append(pb.EventBody(step_completed=completed))
            await self._assignment.stored()
            return shape.read(text)  # so that a function gets the same value whether or not a worker died
        done = self._done[recorded]
        _check_same(replace(step, ordinal=recorded), done.step)
        await self._past.turn_of(done.event.seq)
        try:
            return shape.read(done.event.body.step_completed.result_json)
        except Misfit as misfit:
            raise stored_misfit(done.step, misfit) from None

    def unasked(self) -> list[Step]:
        """Return the steps in the log that this attempt has not asked for, if it has asked for any."""
        return [self._done[ordinal].step for ordinal in self._numbers.unasked()] if self._numbers else []

    async def _read(self) -> Numbers[tuple[str, bytes]]:
        events = await self._past.steps()
        if self._numbers is None:
            self._done = {one.step.ordinal: one for one in map(_done, events)}
            self._numbers = Numbers({ordinal: one.step.what for ordinal, one in self._done.items()})
        return self._numbers


def _done(event: pb.RunEvent) -> _Done:
    said = event.body.step_completed
    return _Done(Step(said.ordinal, said.name, said.fingerprint), event)


def result_shape(function: Callable[..., object]) -> Shape[Any]:
    """Return the shape of a function's result, by its annotation; of any JSON without one. Made once per function."""
    named = getattr(function, "__func__", function)  # a method is another object each time
    try:
        if named not in _SHAPES:
            _SHAPES[named] = _result_shape(function)
        return _SHAPES[named]
    except TypeError:  # an object that can't be hashed, or weakly referenced
        return _result_shape(function)


class _Unknown(Shape[Any]):
    """The shape of an annotation with missing names: of a class within a function, or for type checkers only.
    Plain JSON passes. Any other value would come back as something other than what was returned."""

    def __init__(self, missing: str) -> None:
        super().__init__(cast("type[Any]", Any), "validation")
        self._missing = missing

    def write(self, value: Any) -> str:
        """See Shape."""
        text = super().write(value)
        if json.loads(text) != value:
            raise Misfit(f"its annotation names {self._missing!r}, which the module of the function does not have")
        return text


def _result_shape(function: Callable[..., object]) -> Shape[Any]:
    try:
        shape = shape_of(returned_by(function), "validation")
    except NameError as error:
        return _Unknown(error.name or "")
    shape.check_reads_what_it_writes()
    return shape


def check_name(name: object) -> None:
    """Raise Refusal for a name that no step can have. Call it before the step is done: its result is not stored."""
    check_text(name, "name")
    check_rules(pb.StepCompleted(ordinal=1, name=cast("str", name), result_json="null"))


def arguments_of(positional: Sequence[object], named: Mapping[str, object]) -> object:
    """The arguments of a call, as one value. Raises Refusal `invalid_value` for one that can be read only once."""
    arguments = {"args": list(positional), "kwargs": dict(named)}
    if (path := iterator_part(arguments)) is not None:  # the fingerprint would leave nothing of it for the function
        text = f"arguments{path} is an iterator, which can be read only once; give a list"
        raise Refusal("invalid_value", text, field="arguments", metadata={"path": f"${path}"})
    return arguments


def fingerprint_of(arguments: object) -> bytes:
    plain = plain_json(arguments, "arguments")
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _check_same(asked: Step, done: Step) -> None:
    if asked == done:
        return
    if asked.name == done.name:
        what = f"step {asked.ordinal}, {asked.name!r}, was done with other arguments than it is asked for with now"
    else:
        what = f"step {asked.ordinal} of this run was {done.name!r}, and {asked.name!r} is asked for now"
    message = f"{what}; ask for the same steps in the same order, and put into steps what may differ"
    metadata = {"ordinal": str(asked.ordinal), "recorded": done.name, "asked": asked.name}
    raise Refusal("step_mismatch", message, metadata=metadata)


def stored_misfit(step: Step, misfit: Misfit) -> Refusal:
    """The refusal of a stored result that is not of the type that the step's function states now."""
    what = f"step {step.ordinal}, {step.name!r}, has a stored result that does not fit its type now ({misfit})"
    message = f"{what}; give new fields a default, or let the runs of earlier code end first"
    metadata = {"ordinal": str(step.ordinal), "recorded": step.name, "asked": step.name}
    return Refusal("step_mismatch", message, metadata=metadata)


def _written(step: Step, shape: Shape[R], result: R) -> str:
    try:
        return shape.write(result)
    except Misfit as misfit:
        message = f"step {step.name!r} has a result that does not fit: {misfit}; return what its annotation says"
        raise Refusal("invalid_value", message, field="result_json") from None
