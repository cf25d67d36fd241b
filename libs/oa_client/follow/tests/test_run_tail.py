"""Following a run over a real WebSocket: what is stored, then what comes, to its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from oa_base.refusal import Refusal
from oa_client.core.store import MAX_BATCH, Element, MemoryStore, WatermarkStore
from oa_client.follow.items import Began, Broken, EventsArchived, Item, Seen, StartedOver
from oa_client.follow.run_tail import RunTail
from oa_client.follow.tests.fake_gateway import EPOCH, FakeGateway, Fault, Topic
from oa_client.follow.tests.subscribing import Subscribing
from oa_khala.client.commands import Apply
from oa_khala.frames import Cursor
from oa_khala.topics import run_events
from oa_runlog.proof.chain import chain_over
from oa_runlog.tests.records import record, text
from openagents.runtime.v1 import event_pb2, run_pb2

RUN = record([text(f"{number}\n".encode()) for number in range(6)])
TOPIC = run_events(RUN.run_id)
LAST = len(RUN.events)
TIMEOUT_S = 60.0


def gateway(count: int = LAST, *faults: Fault, floor: int = 0) -> FakeGateway:
    """Has the first `count` events of the run."""
    return FakeGateway({TOPIC: Topic(RUN.events[:count], floor=floor)}, deque(faults))


def holding(count: int, epoch: str = EPOCH) -> MemoryStore:
    """A store with the first `count` events."""
    store = MemoryStore()
    store.apply(applies(count, epoch))
    return store


def applies(count: int, epoch: str = EPOCH) -> list[Apply]:
    """The first `count` events, as a subscription stores them."""
    cursors = [Cursor(epoch, seq, chain_over(RUN.run_id, RUN.events[:seq])) for seq in range(1, count + 1)]
    return [Apply(TOPIC, cursor, event, 1) for cursor, event in zip(cursors, RUN.events, strict=False)]


async def followed(tail: RunTail) -> list[Item]:
    async with asyncio.timeout(TIMEOUT_S), aclosing(tail.items()) as items:
        return [item async for item in items]


def told(items: list[Item]) -> list[tuple[int, bool]]:
    """(seq, live) of the events."""
    return [(item.event.seq, item.live) for item in items if isinstance(item, Seen)]


def stored(store: WatermarkStore) -> list[bytes]:
    return [element.payload for element in store.elements(TOPIC)]


@pytest.mark.parametrize("count", [0, 3, LAST - 1])
async def test_what_is_stored_comes_first_then_the_rest_to_the_end(count: int) -> None:
    store = holding(count)
    async with gateway().running() as served:
        tail = RunTail(Subscribing(served.url), store, RUN.run_id)
        items = await followed(tail)
    assert told(items) == [(seq, seq > count) for seq in range(1, LAST + 1)]
    assert [item.payload for item in items if isinstance(item, Seen)] == RUN.events == stored(store)
    assert (tail.ended(), tail.log.count, tail.log.chain_head) == (True, LAST, chain_over(RUN.run_id, RUN.events))


class SharedStore(MemoryStore):
    """A store in which another process puts other elements, after the stored ones were read and before a subscription
    reads the cursor."""

    def __init__(self, before: MemoryStore, then: MemoryStore) -> None:
        super().__init__()
        self._topics = before._topics
        self._then = then._topics

    def elements(self, topic: str, after_seq: int = 0) -> Iterator[Element]:
        yield from super().elements(topic, after_seq)
        self._topics = self._then


@pytest.mark.parametrize("more", [4, LAST])
async def test_what_another_process_stores_meanwhile_is_not_left_out(more: int) -> None:
    async with gateway().running() as served:
        items = await followed(RunTail(Subscribing(served.url), SharedStore(holding(2), holding(more)), RUN.run_id))
    assert [seq for seq, _ in told(items)] == list(range(1, LAST + 1))


@pytest.mark.parametrize(
    "then", [MemoryStore(), holding(2), holding(5), holding(LAST)], ids=["dropped", "fewer", "more", "all"]
)
async def test_what_another_process_replaces_meanwhile_is_told_from_its_start(then: MemoryStore) -> None:
    before = holding(3, epoch="epoch-0")
    async with gateway().running() as served:
        tail = RunTail(Subscribing(served.url), SharedStore(before, then), RUN.run_id)
        items = await followed(tail)
    again = items.index(StartedOver("epoch_mismatch"))
    assert [seq for seq, _ in told(items[:again])] == [1, 2, 3]
    assert [seq for seq, _ in told(items[again:])] == list(range(1, LAST + 1))
    assert tail.log.chain_head == chain_over(RUN.run_id, RUN.events)


async def test_a_run_that_goes_on_is_followed_live() -> None:
    async with gateway(2).running() as served:
        seqs = []
        async with asyncio.timeout(TIMEOUT_S), aclosing(_tail(served).items()) as items:
            async for item in items:
                assert isinstance(item, Seen)
                seqs.append(item.event.seq)
                if len(seqs) == 2:
                    served.append(TOPIC, RUN.events[2:])
    assert seqs == list(range(1, LAST + 1))


async def test_a_run_that_is_here_to_its_end_asks_nobody() -> None:
    client = Subscribing("ws://127.0.0.1:9/")
    tail = RunTail(client, holding(LAST), RUN.run_id)
    assert told(await followed(tail)) == [(seq, False) for seq in range(1, LAST + 1)]
    assert (client.batches, tail.subscription) == ([], None)


async def test_a_cut_is_told_and_nothing_is_lost_or_doubled() -> None:
    async with gateway(LAST, Fault(cut_after=4)).running() as served:
        items = await followed(_tail(served))
    assert told(items) == [(seq, True) for seq in range(1, LAST + 1)]
    assert sum(isinstance(item, Broken) for item in items) == 1


async def test_another_lineage_is_told_and_read_from_its_start() -> None:
    store = holding(3, epoch="epoch-0")
    async with gateway().running() as served:
        items = await followed(_tail(served, store))
    again = items.index(StartedOver("epoch_mismatch"))
    assert told(items[:again]) == [(1, False), (2, False), (3, False)]
    assert told(items[again:]) == [(seq, True) for seq in range(1, LAST + 1)]
    assert stored(store) == RUN.events


async def test_what_another_process_has_stored_of_another_lineage_is_told_from_its_start() -> None:
    store = holding(3, epoch="epoch-0")
    async with gateway().running() as served:
        items = _tail(served, store).items()
        async with asyncio.timeout(TIMEOUT_S), aclosing(items):
            told_before = [await anext(items) for _ in range(3)]
            following = store.cursor

            def replaced(topic: str) -> Cursor | None:
                """Another process replaces what is stored once this one has read its cursor."""
                store.cursor = following  # type: ignore[method-assign]
                cursor = store.cursor(topic)
                store.drop(TOPIC)
                store.apply(applies(4))
                return cursor

            store.cursor = replaced  # type: ignore[method-assign]
            rest = [item async for item in items]
    assert told(told_before) == [(1, False), (2, False), (3, False)]
    assert rest[0] == StartedOver("epoch_mismatch")
    assert told(rest) == [(seq, seq > 4) for seq in range(1, LAST + 1)]
    assert stored(store) == RUN.events


@pytest.mark.parametrize("count", [0, 2])
async def test_a_run_in_the_archive_is_told_and_not_waited_for(count: int) -> None:
    async with gateway(floor=LAST).running() as served:
        with pytest.raises(EventsArchived) as caught:
            await followed(_tail(served, holding(count)))
    assert caught.value.run_id == RUN.run_id


async def test_a_run_that_may_not_be_followed_raises_why() -> None:
    async with gateway().running() as served:
        client = Subscribing(served.url, refused=((TOPIC, "forbidden_topic"),))
        with pytest.raises(Refusal) as caught:
            await followed(RunTail(client, MemoryStore(), RUN.run_id))
    assert caught.value.reason == "forbidden_topic"


async def test_how_much_is_stored_at_once_is_the_callers_choice() -> None:
    async with gateway().running() as served:
        client = Subscribing(served.url)
        for batch in (MAX_BATCH, 1):
            await followed(RunTail(client, MemoryStore(), RUN.run_id, max_batch=batch))
    assert client.batches == [MAX_BATCH, 1]


def test_what_is_no_id_of_a_run_is_refused_at_once() -> None:
    with pytest.raises(Refusal) as caught:
        RunTail(Subscribing(""), MemoryStore(), "nonsense")
    assert caught.value.reason == "invalid_topic"


def _tail(served: FakeGateway, store: WatermarkStore | None = None) -> RunTail:
    return RunTail(Subscribing(served.url), store or MemoryStore(), RUN.run_id)


def with_snapshot(count: int, *faults: Fault) -> FakeGateway:
    """Has the first `count` events of the run, and a snapshot of it there, in two parts."""
    serving = gateway(count, *faults)
    state = run_pb2.Run(run_id=RUN.run_id, latest_seq=count, chain_head=chain_over(RUN.run_id, RUN.events[:count]))
    if count == LAST:
        state.finish.outcome = event_pb2.RUN_OUTCOME_SUCCEEDED
    payload = run_pb2.RunSnapshot(run=state).SerializeToString()
    serving.topics[TOPIC].snapshots[count] = payload, state.chain_head
    return serving


@pytest.mark.parametrize("count", [3, LAST])
async def test_who_takes_snapshots_begins_with_how_the_run_stands(count: int) -> None:
    async with with_snapshot(count, Fault(cut_after=count + 1)).running() as serving:
        store = MemoryStore()
        tail = RunTail(Subscribing(serving.url), store, RUN.run_id, snapshots=True)
        following = asyncio.create_task(followed(tail))
        async with asyncio.timeout(TIMEOUT_S):
            while not serving.subscribed_from:
                await asyncio.sleep(0.01)
        serving.append(TOPIC, RUN.events[count:])
        items = await following
    began = items[0]
    assert isinstance(began, Began)
    assert began.at.run.latest_seq == count
    assert told(items) == [(seq, True) for seq in range(count + 1, LAST + 1)]
    assert tail.log.chain_head == chain_over(RUN.run_id, RUN.events)
    bound = [cursor.chain for cursor in serving.subscribed_from if cursor is not None]
    assert bound == [chain_over(RUN.run_id, RUN.events[: count + 1])][: len(bound)], "resumed with the snapshot's chain"
    again = await followed(RunTail(Subscribing(serving.url), store, RUN.run_id, snapshots=True))
    assert isinstance(again[0], Began)
    assert not again[0].live


async def test_who_wants_every_event_gets_them_where_a_snapshot_is_stored() -> None:
    store = MemoryStore()
    async with with_snapshot(LAST).running() as serving:
        await followed(RunTail(Subscribing(serving.url), store, RUN.run_id, snapshots=True))
        items = await followed(RunTail(Subscribing(serving.url), store, RUN.run_id))
    assert told(items) == [(seq, True) for seq in range(1, LAST + 1)]
    assert stored(store) == RUN.events
