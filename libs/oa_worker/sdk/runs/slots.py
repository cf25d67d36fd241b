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
"""The contract's bound of a worker's runs."""
Who = TypeVar("Who", bound=Hashable)


class SlotBook(Generic[Who]):
    """Who is at work, who waits for something else, and who wants a slot. Pure.

    After each change `admit` says who goes on. No more than `total` are at work, but for those who go on at once.
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
        """How many may be held at a time: those who wait for something else take no slot."""
        return self.total + len(self.waiting)

    def enter(self, who: Who) -> None:
        """Somebody new wants a slot."""
        self.new[who] = None

    def give_back(self, who: Who) -> bool:
        """Who is at work waits from now on. False if too many do: then the slot is kept."""
        if who not in self.at_work or len(self.waiting) + len(self.coming_back) >= self._max_waiting:
            return False
        self.at_work.discard(who)
        self.waiting.add(who)
        return True

    def come_back(self, who: Who) -> None:
        """Who waited wants a slot again, and gets it before those who are new."""
        if who in self.waiting:
            self.waiting.discard(who)
            self.coming_back[who] = None

    def go_on_at_once(self, who: Who) -> None:
        """Who is to end does not wait for a slot. Until that is over, one fewer of the others is at work."""
        if who in self.waiting or who in self.coming_back or who in self.new:
            self.leave(who)
            self.at_work.add(who)

    def leave(self, who: Who) -> None:
        """It is over with this one."""
        self.at_work.discard(who)
        self.waiting.discard(who)
        self.coming_back.pop(who, None)
        self.new.pop(who, None)

    def admit(self) -> list[Who]:
        """Give the free slots away; who has got one."""
        admitted: list[Who] = []
        while len(self.at_work) < self.total and (queue := self.coming_back or self.new):
            who = next(iter(queue))
            del queue[who]
            self.at_work.add(who)
            admitted.append(who)
        return admitted


class Slots:
    """The slots of one worker. `changed` is told when `capacity` has become another."""

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
        """The book has changed: who has got a slot goes on."""
        for place in self.book.admit():
            place.turn.set()
        if self._capacity != self.book.capacity:
            self._capacity = self.book.capacity
            self._changed()


class Place:
    """One run among the slots: within `async with` it has one, but while it waits for something else."""

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
        """The run is to end, or is another worker's: from now on it waits for no slot."""
        self._ends = True
        if self in self._book.new or self in self._book.coming_back:
            self._go_on_at_once()

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None, None]:
        """Within the block the run waits for something else: if that takes a while, its slot is for others.

        The end of the block waits for a slot, whatever ends it. Who is to end goes on at once.
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
                canceled = error  # of a time that is over, say: the function goes on, so it needs its slot
        if canceled is not None:
            raise canceled

    def _go_on_at_once(self) -> None:
        self._book.go_on_at_once(self)
        self.turn.set()
        self._slots.settle()

    def _leave(self) -> None:
        self._book.leave(self)
        self.turn.set()  # what is left behind of it waits for nothing
        self._slots.settle()
