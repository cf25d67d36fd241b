"""Tells a task that there may be something to do."""

from __future__ import annotations

import asyncio

from oa_platform.tasks.events import until_set


class Word:
    """The word that there may be something to do. It is kept while nobody waits; several unheard ones are one."""

    def __init__(self) -> None:
        self._given = asyncio.Event()

    def give(self) -> None:
        """Say that there may be something to do."""
        self._given.set()

    async def heard(self) -> None:
        """Return when the word is given. It counts as heard then."""
        await self._given.wait()
        self._given.clear()

    async def within(self, seconds: float) -> None:
        """Return when the word is given, or when the time is over. The word counts as heard then."""
        await until_set(self._given, seconds)
        self._given.clear()
