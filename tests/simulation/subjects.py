"""A server of subjects that nobody may trust: the real publisher and the real gateway over one that loses, repeats,
reorders, delays, swallows everything for a while without a word, and goes away.

It is good while the weather is calm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from tests.simulation.world import Weather, World

CHECKED_EVERY_S = 0.05
"""Pause between two delivery checks of a source that publishes."""
SILENT_AFTER_MS = 200
"""A gateway that got none for so long takes frames on the stream again."""
_MAX_BYTES = 2_000
"""Of a message: less than what sources repair at once."""


class State(Enum):
    """How the server is."""

    WORKS = auto()
    SILENT = auto()  # it takes everything, and delivers nothing
    AWAY = auto()


class SimSubjects:
    """The server, and a `Transport` of the sources."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._state = State.WORKS
        self.links: list[SimLink] = []
        self.carried = 0
        self._sources = 0

    def another(self) -> str:
        """The subject of one more source."""
        self._sources += 1
        return f"source{self._sources}"

    @property
    def max_bytes(self) -> int:
        """See Transport."""
        return 0 if self._state is State.AWAY else _MAX_BYTES

    async def publish(self, subject: str, data: bytes) -> None:
        """See Transport."""
        world, weather = self._world, self._world.weather
        if self._state is not State.WORKS:
            return
        for link in self.links:
            if subject in link.heard and world.rng.random() >= weather.lose:
                for _ in range(2 if world.rng.random() < weather.repeat else 1):
                    late_s = 0.3 if world.rng.random() < weather.disorder else 0.0
                    world.later(partial(self._arrive, link, subject, data), world.delay_s() + late_s)

    def _arrive(self, link: SimLink, subject: str, data: bytes) -> None:
        heard = link.heard.get(subject)
        if heard is not None and self._state is not State.AWAY:
            self.carried += 1
            heard(data)

    async def run(self) -> None:
        """Change now and then how it is."""
        rng = self._world.rng
        while True:
            await asyncio.sleep(0.02 + 0.4 * rng.random())
            self._state = State.WORKS if self._world.weather == Weather() else rng.choice(list(State))
            self._world.trace.note("subjects", self._state.name.lower())
            for link in self.links if self._state is State.AWAY else ():
                link.broken("the connection broke")


class SimLink:
    """The connection of a gateway: `Subscriptions`. `broken` is told when there is none any more."""

    def __init__(self) -> None:
        self.heard: dict[str, Callable[[bytes], None]] = {}
        self.broken: Callable[[str], None] = lambda _: None

    def subscribe(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """See Subscriptions."""
        self.heard[subject] = heard

    def unsubscribe(self, subject: str) -> None:
        """See Subscriptions."""
        self.heard.pop(subject, None)
