"""Word that there may be something to do, for a task that looks for it now and then anyway."""

from __future__ import annotations

import asyncio

from oa_platform.system.events import until_set


class Word:
    """What is given while nobody waits is kept; given several times before it is heard, it is one word."""

    def __init__(self) -> None:
        self._given = asyncio.Event()

    def give(self) -> None:
        """There may be something to do."""
        self._given.set()

    async def within(self, seconds: float) -> None:
        """Return when there is word, or when the time is over. The word is heard then."""
        await until_set(self._given, seconds)
        self._given.clear()
