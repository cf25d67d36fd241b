"""With every fan-out each replica follows the log without a hole: at once as long as its way carries everything, and
otherwise after a look at the heads, whatever the way loses, repeats, holds back or reorders."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from oa_fanout.channel import Heard
from oa_fanout.nats import NatsChannel
from oa_testing.peers.memory_channel import Carry, MemoryHub
from oa_testing.peers.nats import nats_server
from oa_testing.postgres import Database, patient_settings
from oa_testing.waiting import PATIENCE_S, eventually
from services.runtime.authority.domain import Head
from services.runtime.log.app.channel_fanout import ChannelFanout
from services.runtime.log.app.fanout import Fanout, Hint, publisher
from services.runtime.log.app.tail import Tail
from services.runtime.log.store.fanout import CHANNEL, PostgresFanout
from services.runtime.log.tests.followed import FakeLog, following

PARTITIONS = 3
_NEVER_S = 3600.0
_SAID, _ARRIVES = "test.said", "test.arrives"

Open = Callable[[str, Hint], Fanout]
"""Makes the fan-out of the replica of that name."""


class Faults:
    """What a way may do to texts, by chance; `done` counts what it did."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._held: list[str] = []
        self.done = Counter[str]()

    def carry(self, text: str) -> Iterable[str]:
        """See Carry."""
        (fate,) = self._rng.choices(("lost", "late", "repeated", "carried"), (0.2, 0.2, 0.2, 0.4))
        self.done[fate] += 1
        if fate == "lost":
            return ()
        if fate == "late":
            self._held.append(text)
            return ()
        arriving = [text, text] if fate == "repeated" else [text]
        late, self._held = self._held, []
        self._rng.shuffle(late)
        self.done["reordered"] += bool(late)
        return (*arriving, *late)


def _everything(text: str) -> Iterable[str]:
    return (text,)


@asynccontextmanager
async def in_memory(carry: Carry, _: Database) -> AsyncIterator[Open]:
    hub = MemoryHub(carry)
    yield lambda _, hint: ChannelFanout(hub.channel, hint)


class _Detour:
    """A `Channel` over a server that carries nothing from one subject to the other by itself."""

    def __init__(self, url: str, heard: Heard) -> None:
        self._out = NatsChannel(url, _SAID, lambda _: None, lambda: 0.5)
        self._in = NatsChannel(url, _ARRIVES, heard, lambda: 0.5)

    async def say(self, text: str) -> None:
        """See Channel."""
        await self._out.say(text)

    async def run(self) -> None:
        """See Channel."""
        await asyncio.gather(self._out.run(), self._in.run())


@asynccontextmanager
async def over_nats(carry: Carry, _: Database) -> AsyncIterator[Open]:
    async with nats_server() as server:
        arriving = asyncio.Queue[str]()
        said = NatsChannel(server.url, _SAID, lambda text: _put(arriving, carry(text)), lambda: 0.5)
        arrives = NatsChannel(server.url, _ARRIVES, lambda _: None, lambda: 0.5)

        async def pass_on() -> None:
            while True:
                await arrives.say(await arriving.get())

        async with _in_the_background(said.run(), arrives.run(), pass_on()):
            await eventually(lambda: said.connected and arrives.connected)
            yield lambda _, hint: ChannelFanout(lambda heard: _Detour(server.url, heard), hint)


@dataclass
class _Committing:
    """Postgres' fan-out with the notification that its store would make: on another channel than others listen on."""

    fanout: PostgresFanout
    said: asyncio.Queue[tuple[str, str]]

    def publish(self, positions: Mapping[int, int]) -> None:
        """See Fanout."""
        notification, heads = self.fanout.notification, {number: Head(head, b"") for number, head in positions.items()}
        (text,) = notification.arguments(heads)
        expression = notification.expression(1)
        assert CHANNEL in expression
        self.said.put_nowait((expression.replace(CHANNEL, _SAID), text))

    async def run(self) -> None:
        """See Fanout."""
        await self.fanout.run()


@asynccontextmanager
async def over_postgres(carry: Carry, database: Database) -> AsyncIterator[Open]:
    settings = patient_settings(database.runtime)
    said, arriving = asyncio.Queue[tuple[str, str]](), asyncio.Queue[str]()
    connections = [await asyncpg.connect(database.runtime) for _ in range(3)]
    committing, listening, passing = connections
    await listening.add_listener(_SAID, lambda *word: _put(arriving, carry(str(word[-1]))))

    async def commit() -> None:
        while True:
            expression, text = await said.get()
            await committing.execute(f"SELECT {expression}", text)

    async def pass_on() -> None:
        while True:
            await passing.execute("SELECT pg_notify($1, $2)", CHANNEL, await arriving.get())

    def opened(name: str, hint: Hint) -> Fanout:
        return _Committing(PostgresFanout(settings, name, hint, lambda: None, _NEVER_S), said)

    async with _in_the_background(commit(), pass_on()):
        yield opened
    for connection in connections:
        await connection.close()


WAYS = (in_memory, over_nats, over_postgres)
Way = Callable[[Carry, Database], AbstractAsyncContextManager[Open]]


@asynccontextmanager
async def replicas(log: FakeLog, opened: Open, count: int) -> AsyncIterator[list[tuple[Tail, list[int], Fanout]]]:
    """So many that follow one log, and hear each other."""
    async with AsyncExitStack() as stack:
        made: list[tuple[Tail, list[int], Fanout]] = []
        for number in range(count):
            tail, heard = await stack.enter_async_context(following(log))
            fanout = opened(f"replica{number}", tail.hint)
            await stack.enter_async_context(_in_the_background(fanout.run()))
            made.append((tail, heard, fanout))
        yield made


def _put(queue: asyncio.Queue[str], texts: Iterable[str]) -> None:
    for text in texts:
        queue.put_nowait(text)


@asynccontextmanager
async def _in_the_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_all_hear(log: FakeLog, made: list[tuple[Tail, list[int], Fanout]]) -> None:
    """Commit at each until it was heard at the others: what is told before all are connected may be lost."""
    for tail, _, fanout in made:
        before = len(log.table[0])
        others = [other for other, _, _ in made if other is not tail]
        async with asyncio.timeout(PATIENCE_S):
            while not all(other.heads()[0].position > before for other in others):
                publisher(tail.publish, fanout)(log.commit(1))
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", WAYS)
async def test_the_others_hear_of_a_commit_without_looking(way: Way, runtime_database: Database) -> None:
    log = FakeLog(PARTITIONS)
    async with way(_everything, runtime_database) as opened, replicas(log, opened, 3) as made:
        await _until_all_hear(log, made)
        for tail, _, fanout in made:
            publisher(tail.publish, fanout)(log.commit(5))
            last = len(log.table[0])
            await eventually(lambda last=last: all(heard[-1] == last for _, heard, _ in made))  # type: ignore[misc]
        assert all(heard == list(range(1, last + 1)) for _, heard, _ in made)


@pytest.mark.parametrize(
    ("way", "seed"), [*((in_memory, seed) for seed in range(20)), (over_nats, 0), (over_postgres, 0)]
)
async def test_a_replica_has_everything_after_a_look_at_the_heads_whatever_the_way_did(
    way: Way, seed: int, runtime_database: Database
) -> None:
    log, rng, faults = FakeLog(PARTITIONS), random.Random(seed), Faults(seed)
    async with way(faults.carry, runtime_database) as opened, replicas(log, opened, 3) as made:
        await _until_all_hear(log, made)
        faults.done.clear()
        for _ in range(60):
            tail, _, fanout = rng.choice(made)
            publisher(tail.publish, fanout)(log.commit(rng.randint(1, 5), rng.randrange(PARTITIONS)))
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        await eventually(lambda: faults.done.total() > 30)
        heads = await log.heads()
        for tail, _, _ in made:
            for partition, head in heads.items():
                tail.hint(partition, head.position)  # as the look at the heads does
        for tail, heard, _ in made:
            await eventually(lambda tail=tail: tail.heads() == _heads_of(log))  # type: ignore[misc]
            assert len(heard) == sum(head.position for head in heads.values())
            assert tail.heads() == _heads_of(log)
        assert faults.done.keys() == {"lost", "late", "repeated", "carried", "reordered"}


def _heads_of(log: FakeLog) -> dict[int, Head]:
    """Partition -> its head, as a tail has it that followed all of it."""
    return {number: Head(len(rows), rows[-1].chain if rows else b"") for number, rows in log.table.items()}
