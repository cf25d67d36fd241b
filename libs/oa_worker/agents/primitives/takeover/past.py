"""The contents of the log when a worker took the run over, given to the function again in their original order.

A function whose branches run at the same time numbers its steps in the order in which it begins them, and that depends
on which of them ended first. So the contents of the log are handed over one by one, in the log's order, each when the
function does not move any more and has asked for everything that came before. Things that are not in the log are begun
once that is over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oa_worker.agents.primitives.loops import check_loop
from oa_worker.sdk.adapter import Assignment, News
from openagents.runtime.v1 import event_pb2 as pb

_ASKED_FOR = ("step.completed", "request.opened", "child.started")
"""Types of events that a function has to ask for before it gets what comes after them."""
QUIET_TURNS = 100
"""After this many turns of the event loop without a question, the function does not move any more."""
_END = 2**63
"""Beyond every seq."""


@dataclass(eq=False)
class _Waiting:
    """`seq`: of an event, or half more for what comes after that one and before the next."""

    seq: float
    turn: asyncio.Future[None]


class Past:
    """The past of one run on this worker. At the first attempt there is none."""

    def __init__(self, assignment: Assignment, patience_ms: int) -> None:
        """`patience_ms`: how long a branch may work by itself while others wait for what it asks for next."""
        self._assignment = assignment
        self._patience_s = patience_ms / 1000
        self._due: deque[float] = deque()
        """The seqs of events that have to be asked for and were not handed over yet, in order."""
        self._times: list[tuple[int, datetime]] = []
        """The seqs of all events that have to be asked for, and when each was recorded."""
        self._steps: list[pb.RunEvent] = []
        self._reading: asyncio.Task[None] | None = None
        self._waiting: list[_Waiting] = []
        self.has_branches = False
        """Whether several tasks of the function ask, as far as known from this attempt and, once `read`, the log."""
        self._own_task: asyncio.Task[Any] | None = None
        self._asked = News()
        """Told whenever a task asks, or stops waiting."""
        self._handing: asyncio.Task[None] | None = None
        self._is_rest_unasked = False
        """Whether no task asked within the patience for what is still due, and none has asked since."""

    def begins_in(self, task: asyncio.Task[Any]) -> None:
        """Note the function's own task: other tasks that ask are branches."""
        self._own_task = task

    def in_own_task(self) -> bool:
        """Whether the current task is the function's own. Raises Refusal in another event loop than the function's."""
        if self._own_task is not None:
            check_loop(self._own_task.get_loop())
        return asyncio.current_task() is self._own_task

    def note_asker(self) -> None:
        """Note that the current task asks. Raises as `in_own_task` does."""
        is_branch = not self.in_own_task()
        self.has_branches = self.has_branches or is_branch

    async def steps(self) -> Sequence[pb.RunEvent]:
        """Return the steps that were done, as they are in the log (`step.completed`)."""
        await self.read()
        return self._steps

    async def turn_of(self, seq: int) -> None:
        """Wait for the turn of the event with this seq."""
        await self.read()
        if self._due:
            self._is_rest_unasked = False
            await self._wait(seq)

    async def turn_of_time(self, end: datetime) -> None:
        """Wait for the turn of a time that has come: after what other branches had asked for before it.

        Otherwise a wait that was given up, because something else came first, would be over first now.
        """
        await self.read()
        before = [seq for seq, recorded in self._times if recorded < end]
        if before and self._due and self.has_branches and not self._is_rest_unasked:
            await self._wait(before[-1] + 0.5)

    async def over(self) -> None:
        """Wait until the whole past was handed over, or is not asked for any more. In the first attempt, wait for one
        turn of the loop, so that branches that begin together do so even if a step raises at once.
        """
        await asyncio.sleep(0)
        await self.read()
        if self._due and not self._is_rest_unasked:
            await self._wait(_END)

    async def read(self) -> None:
        """Read the log, once. Wait for this before a thing is looked for in the log."""
        if self._assignment.attempt <= 1:
            return
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_log())
        await asyncio.shield(self._reading)

    async def _read_log(self) -> None:
        async for event in self._assignment.events(*_ASKED_FOR):
            self._due.append(event.seq)
            if event.HasField("recorded_time"):
                self._times.append((event.seq, event.recorded_time.ToDatetime(UTC)))
            body = event.body
            if any(one.has_branches for one in (body.step_completed, body.request_opened, body.child_started)):
                self.has_branches = True
            if body.HasField("step_completed"):
                self._steps.append(event)

    async def _wait(self, seq: float) -> None:
        waiting = _Waiting(seq, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self.note_asker()
        self._asked.tell()
        if self._handing is None:
            self._handing = asyncio.create_task(self._hand_over())
        try:
            await waiting.turn
        finally:
            if waiting in self._waiting:  # the function has given it up, as `asyncio.timeout` does
                self._waiting.remove(waiting)
                self._settle(seq)
                self._asked.tell()

    def _settle(self, seq: float) -> None:
        if seq in self._due:
            self._due.remove(seq)

    async def _hand_over(self) -> None:
        try:
            while self._waiting:
                await self._until_quiet()
                first = min(self._waiting, key=lambda one: one.seq, default=None)
                if first is None or (self._is_early(first) and await self._moves_within_patience()):
                    continue
                if first.seq < _END:
                    while self._due and self._due[0] < first.seq:
                        self._due.popleft()  # nobody asks for it, or too late
                    self._settle(first.seq)
                else:
                    self._is_rest_unasked = self.has_branches
                self._waiting.remove(first)
                if not first.turn.done():  # it may have been canceled in this very turn
                    first.turn.set_result(None)
        finally:
            self._handing = None

    def _is_early(self, waiting: _Waiting) -> bool:
        """Whether another branch may still ask for an earlier event of the log. A sole branch can't: what it asked for
        before raised or was given up then, and does so again."""
        if not self.has_branches or self._is_rest_unasked:
            return False
        return bool(self._due) and self._due[0] < waiting.seq

    async def _until_quiet(self) -> None:
        count, turns = self._asked.count, 0
        while turns < QUIET_TURNS:
            await asyncio.sleep(0)
            count, turns = (count, turns + 1) if count == self._asked.count else (self._asked.count, 0)

    async def _moves_within_patience(self) -> bool:
        count = self._asked.count
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                await self._asked.after(count)
        return self._asked.count > count  # also if it moved in the turn in which the time ran out
