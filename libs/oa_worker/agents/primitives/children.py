"""Runs that an agent starts, and how they end: each is started once for the run, no matter which process dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, overload

from oa_base.refusal import Refusal
from oa_runlog.fingerprint import text_sha256
from oa_wire.shapes import Misfit, shape_of
from oa_worker.agents.primitives.ending import check_not_canceling, or_canceled
from oa_worker.agents.primitives.steps.within import check_outside_step
from oa_worker.agents.primitives.takeover.numbers import Numbers, numbers_of
from oa_worker.agents.primitives.takeover.past import Past
from oa_worker.sdk.adapter import Assignment
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1.worker_service_pb2 import StartChildRequest

if TYPE_CHECKING:
    from typing_extensions import TypeForm

M = TypeVar("M")
_TYPES = ("child.started", "child.finished")
What = tuple[str, bytes]
"""Distinguishes a child from others: its agent, and the SHA-256 of its input."""


class ChildFailed(Exception):
    """A child has ended without success. `reason` says why, in one word, and `message` for people."""

    def __init__(self, run_id: str, finish: pb.RunFinished) -> None:
        how = "was canceled" if finish.outcome == pb.RUN_OUTCOME_CANCELED else "failed"
        said = f": {finish.message}" if finish.message else ""
        super().__init__(f"{run_id} {how} ({finish.reason}){said}")
        self._finish = finish
        self.run_id = run_id
        self.reason = finish.reason
        self.message = finish.message

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by their text; pools of processes carry them, and end if they can't.
        return (type(self), (self.run_id, self._finish))


class Child:
    """A run that this one has started. It goes on whether or not anybody waits for it."""

    def __init__(self, children: Children, run_id: str) -> None:
        self.run_id = run_id
        self._children = children

    def __repr__(self) -> str:
        return f"Child({self.run_id})"

    @overload
    async def result(self) -> object: ...

    @overload
    async def result(self, type_: TypeForm[M]) -> M: ...

    async def result(self, type_: TypeForm[Any] = object) -> Any:
        """Wait for the child's end and return its agent's result, as a value of the type.

        Raises ChildFailed if the child did not succeed, and Refusal `payload_mismatch` for a result that is not of the
        type. After the cancel of this run was requested, it raises `invalid_transition` at once unless the child had
        already ended.
        """
        shape = shape_of(type_, "validation")
        async with self._children.waiting():
            finish = await self._children.finish_of(self.run_id)
        if finish.outcome != pb.RUN_OUTCOME_SUCCEEDED:
            raise ChildFailed(self.run_id, finish)
        try:
            return shape.read(finish.result_json or "null")
        except Misfit as misfit:
            text = f"the result of {self.run_id} does not fit ({misfit}); ask for the type that its agent returns"
            raise Refusal("payload_mismatch", text, field="result_json") from None


class Children:
    """The children of one run, numbered in the order in which they are started."""

    def __init__(self, assignment: Assignment, past: Past) -> None:
        self._assignment = assignment
        self._past = past
        self._asked = 0
        self._read_up_to = 0
        self._reading = asyncio.Lock()
        self._started: dict[str, tuple[int, pb.ChildStarted]] = {}
        self._finished: dict[str, tuple[int, pb.RunFinished]] = {}
        self._numbers: Numbers[What] | None = None
        self.waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        """The context within which the run waits for a child."""

    async def start(self, spec: pb.RunSpec, *, cancel_with_parent: bool) -> Child:
        """Start a run, unless it was started before a takeover.

        Raises Refusal `step_mismatch` for a child other than the one that was started at this place, `invalid_value`
        within a step, and the Refusal of the authority if it does not start the run.
        """
        check_outside_step(f"a run of {spec.adapter!r}")
        self._past.note_asker()
        self._asked += 1
        wanted = self._asked
        if self._assignment.attempt > 1:
            await self._read()
        await self._past.read()
        if self._numbers is None:  # the log has nothing of this attempt yet
            self._numbers = known(one for _, one in self._started.values())
        number = found(self._numbers, wanted, spec, has_branches=self._past.has_branches)
        if number is None:
            await self._past.over()
            request = StartChildRequest(
                run_id=self._assignment.run_id,
                lease_epoch=self._assignment.lease_epoch,
                child_id=id_of(self._numbers.free(wanted)),
                spec=spec,
                cancel_with_parent=cancel_with_parent,
                has_branches=self._past.has_branches,
            )
            return Child(self, await self._made(request))
        seq, before = self._started[id_of(number)]
        _check_same(spec, before)
        await self._past.turn_of(seq)
        return Child(self, before.run_id)

    async def _made(self, request: StartChildRequest) -> str:
        await self._assignment.stored()  # so that earlier actions of the function precede it in the log
        try:
            return await or_canceled(self._assignment, self._assignment.start_child(request))
        except Refusal as refusal:
            if refusal.reason != "idempotency_conflict":
                raise
            # An earlier attempt's call was still on its way when this attempt read the log.
            raise _other_input(request.child_id, request.spec.adapter) from None

    async def finish_of(self, run_id: str) -> pb.RunFinished:
        """Wait for a child's end, and return its finish. Raises Refusal once the run is no longer this worker's, and at
        once if the child had not ended when the run's cancel was requested: the log does not get its end any more."""
        # As of now: a task that waits already is canceled by the function, if the function wants that.
        is_canceling = self._assignment.cancel.requested
        while True:
            told = self._assignment.news.count  # before the read, so that news during the read leads to another read
            await self._read()
            if run_id in self._finished:
                seq, finish = self._finished[run_id]
                await self._past.turn_of(seq)
                return finish
            if is_canceling:
                await check_not_canceling(self._assignment)
            await self._assignment.news.after(told)

    async def _read(self) -> None:
        async with self._reading:
            async for event in self._assignment.events(*_TYPES, after_seq=self._read_up_to):
                match event.body.WhichOneof("kind"):
                    case "child_started":
                        self._started[event.body.child_started.child_id] = event.seq, event.body.child_started
                    case "child_finished":
                        finished = event.body.child_finished
                        self._finished[finished.run_id] = event.seq, finished.finish
                self._read_up_to = event.seq


def id_of(number: int) -> str:
    """The id of a child with this number."""
    return f"c{number}"


def known(started: Iterable[pb.ChildStarted]) -> Numbers[What]:
    """Return the numbers of the children in the log."""
    return numbers_of("c", {one.child_id: (one.adapter, one.input_sha256) for one in started})


def found(numbers: Numbers[What], wanted: int, spec: pb.RunSpec, *, has_branches: bool) -> int | None:
    """Return the number under which the log has the child; None if it does not have it."""
    number = numbers.found(wanted, _what(spec), has_branches=has_branches)
    if number is None:  # as an older authority wrote it
        number = numbers.found(wanted, (spec.adapter, b""), has_branches=has_branches)
    return number


def is_same(spec: pb.RunSpec, before: pb.ChildStarted) -> bool:
    """Whether this is the child that was started, as far as the log says."""
    return spec.adapter == before.adapter and before.input_sha256 in (b"", _what(spec)[1])


def _what(spec: pb.RunSpec) -> What:
    return spec.adapter, text_sha256(spec.agent.input_json)


def _check_same(spec: pb.RunSpec, before: pb.ChildStarted) -> None:
    if is_same(spec, before):
        return
    if before.adapter == spec.adapter:
        raise _other_input(before.child_id, spec.adapter)
    what = f"child {before.child_id} of this run was {before.adapter!r}, and {spec.adapter!r} is started now"
    raise _mismatch(what, before.adapter, spec.adapter)


def _other_input(child_id: str, agent: str) -> Refusal:
    what = f"child {child_id} of this run, {agent!r}, was started with another input than it is started with now"
    return _mismatch(what, agent, agent)


def _mismatch(what: str, recorded: str, asked: str) -> Refusal:
    text = f"{what}; start the same runs in the same order, and make what may differ a step"
    return Refusal("step_mismatch", text, metadata={"recorded": recorded, "asked": asked})
