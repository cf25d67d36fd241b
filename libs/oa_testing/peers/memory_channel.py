"""A channel within one process, which does to texts what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from oa_fanout.channel import Heard

Carry = Callable[[str], Iterable[str]]
"""What becomes of a text on its way to one listener: the texts that arrive now. Nothing is lost unless it says so."""


class MemoryHub:
    """Where all channels meet."""

    def __init__(self, carry: Carry = lambda text: (text,)) -> None:
        self._carry = carry
        self._channels: list[MemoryChannel] = []

    def channel(self, heard: Heard) -> MemoryChannel:
        """One more."""
        channel = MemoryChannel(self, heard)
        self._channels.append(channel)
        return channel

    def tell(self, teller: MemoryChannel, text: str) -> None:
        """All but the one that tells."""
        for channel in self._channels:
            if channel is not teller and channel.listens:
                for arrived in self._carry(text):
                    channel.heard(arrived)


class MemoryChannel:
    """A `Channel` of a hub."""

    def __init__(self, hub: MemoryHub, heard: Heard) -> None:
        self._hub = hub
        self.heard = heard
        self.listens = False

    async def say(self, text: str) -> None:
        """Tell the others at once."""
        self._hub.tell(self, text)

    async def run(self) -> None:
        """Hear the others until cancelled."""
        self.listens = True
        try:
            await asyncio.Event().wait()
        finally:
            self.listens = False
