"""A worker's slots: how many runs are at work on it, and which is next.

A run that only waits gives its slot to others, and takes one again before it goes on. `SlotBook` decides; `Slots` and
`Place` wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

from oa_worker.sdk.limits import WorkerLimits

MAX_HELD = 1000
"""The contract's limit on a worker's runs."""
Who = TypeVar("Who", bound=Hashable)


class SlotBook(Generic[Who]):
    """Records which runs are at work, which wait for something else, and which want a slot. Pure.

    After each change, `admit` returns the runs that go on. No more than `total` are at work, except for those that go
    on at once.
    """

    def __init__(self, total: int, max_waiting: int) -> None:
        self.total = total
        self._max_waiting = max_waiting
        self.at_work: set[Who] = set()
        self.waiting: set[Who] = set()
        self.coming_back: dict[Who, None] = {}
        self.new: dict[Who, None] = {}

    @property
    def capacity(self) -> int:
        """How many runs may be held at a time: those that wait for something else take no slot."""
        return self.total + len(self.waiting)

    def enter(self, who: Who) -> None:
        """Add a new run that wants a slot."""
        self.new[who] = None

    def give_back(self, who: Who) -> bool:
        """Take the slot of a run at work, which waits from now on. False if too many wait: then it keeps the slot."""
        if who not in self.at_work or len(self.waiting) + len(self.coming_back) >= self._max_waiting:
            return False
        self.at_work.discard(who)
        self.waiting.add(who)
        return True

    def come_back(self, who: Who) -> None:
        """Note that a run that waited wants a slot again. It gets one before new runs do."""
        if who in self.waiting:
            self.waiting.discard(who)
            self.coming_back[who] = None

    def go_on_at_once(self, who: Who) -> None:
        """Let a run that is to end go on without a slot. Until it is over, one fewer of the others is at work."""
        if who in self.waiting or who in self.coming_back or who in self.new:
            self.leave(who)
            self.at_work.add(who)

    def leave(self, who: Who) -> None:
        """Remove a run that is over."""
        self.at_work.discard(who)
        self.waiting.discard(who)
        self.coming_back.pop(who, None)
        self.new.pop(who, None)

    def admit(self) -> list[Who]:
        """Give the free slots away, and return the runs that got one."""
        admitted: list[Who] = []
        while len(self.at_work) < self.total and (queue := self.coming_back or self.new):
            who = next(iter(queue))
            del queue[who]
            self.at_work.add(who)
            admitted.append(who)
        return admitted


class Slots:
    """The slots of one worker. `changed` is called when `capacity` has changed."""

    def __init__(self, total: int, limits: WorkerLimits, changed: Callable[[], None] = lambda: None) -> None:
        self.book: SlotBook[Place] = SlotBook(total, min(limits.max_waiting_runs, MAX_HELD - total))
        self.keep_s = limits.keep_slot_ms / 1000
        self._changed = changed
        self._capacity = total

    @property
    def capacity(self) -> int:
        """How many runs the worker may hold at a time."""
        return self.book.capacity

    def settle(self) -> None:
        """Apply a change of the book: runs that have got a slot go on."""
        for place in self.book.admit():
            place.turn.set()
        if self._capacity != self.book.capacity:
            self._capacity = self.book.capacity
            self._changed()


class Place:
    """One run among the slots: within `async with` it has one, except while it waits for something else."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._book = slots.book
        self._ends = False
        self._blocks = 0
        self.turn = asyncio.Event()
        """Set while it may be at work."""

    async def __aenter__(self) -> Self:
        self._book.enter(self)
        if self._ends:
            self._book.go_on_at_once(self)
            self.turn.set()
        self._slots.settle()
        try:
            await self.turn.wait()
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def ends(self) -> None:
        """Wait for no slot from now on, because the run is to end, or is another worker's."""
        self._ends = True
        if self in self._book.new or self in self._book.coming_back:
            self._go_on_at_once()

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None, None]:
        """Within the block the run waits for something else: if that takes a while, others may have its slot.

        The end of the block waits for a slot, whatever ends it. A run that is to end goes on at once.
        """
        if self._blocks:  # it waits already
            yield
            return
        self._blocks = 1
        timer = asyncio.get_running_loop().call_later(self._slots.keep_s, self._give_back)
        try:
            yield
        finally:
            self._blocks = 0
            timer.cancel()
            await self._come_back()

    def _give_back(self) -> None:
        if self._book.give_back(self):
            self.turn.clear()
            self._slots.settle()

    async def _come_back(self) -> None:
        self._book.come_back(self)
        self._slots.settle()
        if self._ends:
            self._go_on_at_once()
        canceled: asyncio.CancelledError | None = None
        while not self.turn.is_set():
            try:
                await self.turn.wait()
            except asyncio.CancelledError as error:
                canceled = error  # of a timeout, for example: the function goes on, so it needs its slot
        if canceled is not None:
            raise canceled

    def _go_on_at_once(self) -> None:
        self._book.go_on_at_once(self)
        self.turn.set()
        self._slots.settle()

    def _leave(self) -> None:
        self._book.leave(self)
        self.turn.set()  # tasks of it that are left behind wait for nothing
        self._slots.settle()
