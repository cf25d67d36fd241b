"""The interface that every channel implements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Heard = Callable[[str], None]
"""Receives a text from another process. Must not block and must not raise."""


class Channel(Protocol):
    """Sends texts to all other processes, and passes their texts to the `Heard` that it was made with."""

    async def say(self, text: str) -> None:
        """Send a text to the others. Delivery is not confirmed, and nothing is raised when nobody can receive it."""
        ...

    async def run(self) -> None:
        """Receive from the others until canceled, reconnecting as often as necessary."""
        ...
