"""Writers, readers and trouble, for any log that can be appended to and read.

Each writer appends until acknowledged, retrying with the same key when it doesn't know. Each reader reads the whole
time and keeps what it got, in the order in which it got it. At the end the readers' records are compared with what was
acknowledged. The log's own numbers are not trusted: an element is known by its key.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class Uncertain(Exception):
    """The append may or may not have been stored; to be sent again with the same key."""


class Calls:
    """How many were made: connections are killed by them and not by time, so that a slow machine has no more of it."""

    def __init__(self) -> None:
        self._made = 0

    def note(self) -> None:
        """One more."""
        self._made += 1

    async def passed(self, count: float) -> None:
        """Return when so many more were made."""
        goal = self._made + count
        while self._made < goal:
            await asyncio.sleep(0.001)


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, by chance."""

    max_delay_s: float = 0.004
    rollback_share: float = 0.10
    appends_per_kill: float = 40.0
    """On average, tried ones."""


class Subject(Protocol):
    """A log under test, with several replicas."""

    replicas: int

    async def append(self, replica: int, writer: int, key: str) -> None:
        """Store an element under `key` or raise Uncertain."""
        ...

    def read(self, reader: int) -> AsyncIterator[tuple[str, str]]:
        """Everything from the beginning on, then what is added, without end: (writer's stream, key)."""
        ...

    async def kill_a_connection(self, rng: random.Random) -> None:
        """End one of the log's database connections from outside."""
        ...


@dataclass(frozen=True)
class Report:
    """What the readers saw, compared with what was acknowledged; numbers over all readers."""

    acknowledged: int
    retries: int
    kills: int
    lost: int
    doubled: int
    out_of_order: int
    invented: int

    @property
    def is_clean(self) -> bool:
        """Every reader saw every acknowledged element once and in order, and nothing else."""
        return not (self.lost or self.doubled or self.out_of_order or self.invented)


async def run(
    subject: Subject, *, writers: int, appends: int, readers: int, trouble: Trouble, seed: int, settle_s: float = 10.0
) -> Report:
    """`appends` in all, spread over `writers`; ends when the readers have seen all, or nothing new for `settle_s`."""
    rng = random.Random(seed)
    seen: list[list[tuple[str, str]]] = [[] for _ in range(readers)]
    tried = Calls()
    retries = 0
    kills = 0

    async def write(writer: int, share: int) -> None:
        nonlocal retries
        chance = random.Random(seed * 1000 + writer)
        for number in range(share):
            while True:
                tried.note()
                try:
                    await subject.append(chance.randrange(subject.replicas), writer, f"{writer}:{number}")
                    break
                except Uncertain:
                    retries += 1
                    await asyncio.sleep(chance.random() * trouble.max_delay_s)

    async def read(reader: int) -> None:
        async for element in subject.read(reader):
            seen[reader].append(element)

    async def kill() -> None:
        nonlocal kills
        while True:
            await tried.passed(rng.random() * 2 * trouble.appends_per_kill)
            await subject.kill_a_connection(rng)
            kills += 1

    shares = [appends // writers + (writer < appends % writers) for writer in range(writers)]
    background = [asyncio.create_task(read(reader)) for reader in range(readers)]
    killer = asyncio.create_task(kill())
    try:
        await asyncio.gather(*(write(writer, share) for writer, share in enumerate(shares)))
        killer.cancel()
        await _settled(seen, sum(shares), background, settle_s)
    finally:
        for task in (killer, *background):
            task.cancel()
        await asyncio.gather(killer, *background, return_exceptions=True)
    expected = {f"{writer}:{number}" for writer, share in enumerate(shares) for number in range(share)}
    return _compare(seen, expected, retries, kills)


async def _settled(
    seen: Sequence[Sequence[object]], wanted: int, readers: Sequence[asyncio.Task[None]], settle_s: float
) -> None:
    """Until each reader has as many elements as were acknowledged, or none has got a new one for `settle_s`."""
    loop = asyncio.get_running_loop()
    counts, since = [-1], loop.time()
    while any(len(one) < wanted for one in seen) and loop.time() - since < settle_s:
        for reader in readers:
            if reader.done():
                reader.result()
        now = [len(one) for one in seen]
        if now != counts:
            counts, since = now, loop.time()
        await asyncio.sleep(0.02)


def _compare(seen: Sequence[Sequence[tuple[str, str]]], expected: set[str], retries: int, kills: int) -> Report:
    lost = doubled = out_of_order = invented = 0
    for elements in seen:
        counts = Counter(key for _, key in elements)
        lost += len(expected - counts.keys())
        invented += len(counts.keys() - expected)
        doubled += sum(count - 1 for count in counts.values())
        newest: dict[str, int] = {}
        for stream, key in elements:
            number = int(key.split(":")[1])
            if number < newest.get(stream, -1):
                out_of_order += 1
            newest[stream] = max(number, newest.get(stream, -1))
    return Report(len(expected), retries, kills, lost, doubled, out_of_order, invented)
