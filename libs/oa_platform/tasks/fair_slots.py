"""Slots for work that is limited, shared fairly among those for whom the work is done.

    works_for("org_1")                           # at the door of a call: everything that the call does is for this org
    slots = FairSlots(8)
    async with slots.slot(for_whom()):
        ...

With a semaphore, who asks for a thousand things at once makes everybody else wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

_for_whom: ContextVar[str] = ContextVar("oa_for_whom", default="")


def works_for(one: str) -> None:
    """Note for whom the current call, with all that it starts, works: an org, or one of our services."""
    _for_whom.set(one)


def for_whom() -> str:
    """For whom the current code works; empty for the process itself."""
    return _for_whom.get()


class FairSlots:
    """At most `slots` are taken at a time. A slot that becomes free goes to the next key in turn, and to the first of
    its queue: a key waits for one slot of each other key, however many wait there."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        # The keys in the order of their turns, each with those that wait. While anybody waits, no slot is free.
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}

    @asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it for the block."""
        await self.take(key)
        try:
            yield
        finally:
            self.give_back()

    def take_now(self) -> bool:
        """Take a slot if one is free. Who gets one has to give it back."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def take(self, key: str) -> None:
        """Wait for a slot. Who gets one has to give it back."""
        if self.take_now():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, {})[turn] = None
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                self._leave(key, turn)
            else:
                self.give_back()  # the slot came in the moment in which the wait was given up
            raise

    def give_back(self) -> None:
        """Give a slot back."""
        while self._waiting:
            key = next(iter(self._waiting))
            waiting = self._waiting.pop(key)
            turn = next(iter(waiting))
            del waiting[turn]
            if waiting:
                self._waiting[key] = waiting  # after all others
            if not turn.done():  # who has given up has not noticed yet
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key, {})
        waiting.pop(turn, None)
        if not waiting:
            self._waiting.pop(key, None)
