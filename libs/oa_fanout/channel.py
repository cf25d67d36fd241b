"""What every way of telling has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Heard = Callable[[str], None]
"""Takes a text of another process. Must not block, must not raise."""


class Channel(Protocol):
    """Tells all others what one says, and calls what it was made with (`Heard`) for what they say."""

    async def say(self, text: str) -> None:
        """Tell the others. It is not known whether anybody hears it; nothing is raised when nobody can."""
        ...

    async def run(self) -> None:
        """Hear the others, until cancelled, however often the way to them breaks."""
        ...
