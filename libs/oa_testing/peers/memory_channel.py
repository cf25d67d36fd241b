"""A channel within one process that does to texts what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from oa_fanout.channel import Heard

Carry = Callable[[str], Iterable[str]]
"""Maps a text on its way to one listener to the texts that arrive now. Nothing is lost unless it says so."""


class MemoryHub:
    """Connects all channels."""

    def __init__(self, carry: Carry = lambda text: (text,)) -> None:
        self._carry = carry
        self._channels: list[MemoryChannel] = []

    def channel(self, heard: Heard) -> MemoryChannel:
        """Add a channel."""
        channel = MemoryChannel(self, heard)
        self._channels.append(channel)
        return channel

    def tell(self, teller: MemoryChannel, text: str) -> None:
        """Tell all channels except `teller`."""
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
        """Hear the others until canceled."""
        self.listens = True
        try:
            await asyncio.Event().wait()
        finally:
            self.listens = False
