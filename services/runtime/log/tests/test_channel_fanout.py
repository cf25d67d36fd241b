"""Over a channel every replica follows the log without a hole, whatever it loses, repeats, holds back or reorders."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from oa_fanout.channel import Channel, Heard
from oa_fanout.nats import NatsChannel
from oa_platform.telemetry.tracing import sampled_traceparent
from oa_platform.tests.traces import collected, span
from oa_testing.peers.memory_channel import MemoryHub
from oa_testing.peers.nats import nats_server
from oa_testing.waiting import eventually
from services.runtime.authority.domain import Head
from services.runtime.log.app.channel_fanout import ChannelFanout
from services.runtime.log.app.fanout import publisher
from services.runtime.log.app.tail import Tail
from services.runtime.log.domain.positions import MAX_POSITIONS, positions_of, positions_text, texts_of
from services.runtime.log.tests.followed import FakeLog, following

PARTITIONS = 3
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


class Faults:
    """What a channel may do to texts, by chance."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._held: list[str] = []

    def carry(self, text: str) -> Iterable[str]:
        fate = self._rng.random()
        if fate < 0.2:
            return ()
        if fate < 0.4:
            self._held.append(text)
            return ()
        arriving = [text, text] if fate < 0.6 else [text]
        late, self._held = self._held, []
        self._rng.shuffle(late)
        return (*arriving, *late)


@asynccontextmanager
async def replicas(
    log: FakeLog, open_channel: Callable[[Heard], Channel], count: int
) -> AsyncIterator[list[tuple[Tail, list[int], ChannelFanout]]]:
    """So many that follow one log, and tell each other."""
    async with AsyncExitStack() as stack:
        made, tasks = [], []
        for _ in range(count):
            tail, heard = await stack.enter_async_context(following(log))
            fanout = ChannelFanout(open_channel, tail.hint)
            tasks.append(asyncio.create_task(fanout.run()))
            made.append((tail, heard, fanout))
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("seed", range(20))
async def test_a_replica_has_everything_after_a_look_at_the_heads_whatever_the_channel_did(seed: int) -> None:
    log, rng = FakeLog(PARTITIONS), random.Random(seed)
    hub = MemoryHub(Faults(seed).carry)
    async with replicas(log, hub.channel, 3) as made:
        for _ in range(60):
            tail, _, fanout = rng.choice(made)
            publisher(tail.publish, fanout)(log.commit(rng.randint(1, 5), rng.randrange(PARTITIONS)))
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        heads = await log.heads()
        for tail, _, _ in made:
            for partition, head in heads.items():
                tail.hint(partition, head.position)  # as the look at the heads does
        for tail, heard, _ in made:
            await eventually(lambda tail=tail: tail.heads() == heads_of(log))  # type: ignore[misc]
            assert len(heard) == sum(head.position for head in heads.values())


def heads_of(log: FakeLog) -> dict[int, Head]:
    """Partition -> its head, as a tail has it that followed all of it."""
    return {number: Head(len(rows), rows[-1].chain if rows else b"") for number, rows in log.table.items()}


async def test_over_nats_the_others_hear_of_a_commit_without_looking() -> None:
    log = FakeLog(PARTITIONS)
    async with (
        nats_server() as server,
        replicas(log, lambda heard: NatsChannel(server.url, "log", heard, lambda: 0.5), 3) as made,
    ):
        (tail, _, fanout), *others = made
        publish = publisher(tail.publish, fanout)
        publish(log.commit(1))
        while not all(heard for _, heard, _ in others):  # until all are connected
            publish(log.commit(1))
            await asyncio.sleep(0.01)
        publish(log.commit(5))
        last = len(log.table[0])
        await eventually(lambda: all(heard[-1] == last for _, heard, _ in others))
        assert all(heard == list(range(1, last + 1)) for _, heard, _ in made)


async def test_what_goes_out_together_is_told_with_the_trace_of_its_first_traced_commit() -> None:
    log, hub = FakeLog(PARTITIONS), MemoryHub()
    texts: list[str] = []
    listener = asyncio.create_task(hub.channel(texts.append).run())
    async with replicas(log, hub.channel, 1) as ((tail, _, fanout),):
        publish = publisher(tail.publish, fanout)
        publish(log.commit(1))
        with collected(), span("commit"):
            publish(log.commit(1, 1))
            traceparent = sampled_traceparent()
        await eventually(lambda: bool(texts))
        publish(log.commit(1))
        await eventually(lambda: len(texts) > 1)
    listener.cancel()
    assert texts == [f"{traceparent} 0:1 1:1", "0:2"]


async def test_a_text_that_is_none_of_ours_is_passed_over() -> None:
    hub, hints = MemoryHub(), list[tuple[int, int, str]]()
    stranger = hub.channel(lambda _: None)
    fanout = ChannelFanout(hub.channel, lambda *place: hints.append(place))
    task = asyncio.create_task(fanout.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    numbers = (f"1:{10**400}", "1:-2", "1:+2", "1: 2", "1:1_0", "1:²", "1:٢", f"{10**20}:1")
    for text in ("", "x", "1:2:3", "one:2", *numbers, "4:5", f"{TRACEPARENT} 6:7", TRACEPARENT):
        await stranger.say(text)
    assert hints == [(4, 5, ""), (6, 7, TRACEPARENT)]
    hints.clear()
    await stranger.say("8:9 later;word 10:11 more=1")
    assert hints == [(8, 9, ""), (10, 11, "")], "a later release may say more"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_many_partitions_take_several_texts_that_fit_into_any_message() -> None:
    positions = dict.fromkeys(range(10_000, 10_000 + 2 * MAX_POSITIONS + 1), 2**63 - 1)
    texts = list(texts_of(positions))
    assert len(texts) == 3
    assert all(len(text) < 8000 for text in texts)
    assert dict(position for text in texts for position in positions_of(text)) == positions
    assert list(texts_of({})) == []
    assert positions_text([(1, 2)]) == "1:2"
