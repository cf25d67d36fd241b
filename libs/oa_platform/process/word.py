"""Word that there may be something to do, for a task that looks for it now and then anyway."""

from __future__ import annotations

import asyncio


class Word:
    """What is given while nobody waits is kept; given several times before it is heard, it is one word."""

    def __init__(self) -> None:
        self._given = asyncio.Event()

    def give(self) -> None:
        """There may be something to do."""
        self._given.set()

    async def within(self, seconds: float) -> None:
        """Return when there is word, or when the time is over. The word is heard then."""
        try:
            async with asyncio.timeout(seconds):
                await self._given.wait()
        except TimeoutError:
            pass
        self._given.clear()
