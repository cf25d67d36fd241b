"""A Watch stream whose reader is as slow as the test wants, over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from oa_base.refusal import Refusal
from oa_testing.waiting import eventually
from oa_topics.delivery_checks import DeliveryChecks
from oa_topics.hub import TopicHub
from oa_topics.servicer import ANSWER_BYTES, TopicApi
from oa_topics.store import TopicLimits
from oa_topics.tests.memory_topics import Counted, MemoryTopics, seqs
from openagents.sync.v1 import topic_service_pb2 as pb

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
U = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6Y:events"


class Stream:
    """A hub and one stream of it."""

    def __init__(self, limits: TopicLimits | None = None) -> None:
        self.store = MemoryTopics({T: [], U: []})
        self.report = Counted()
        self.hub = TopicHub(self.store, limits or TopicLimits(), self.report)
        self.noted: list[str] = []
        self._requests: asyncio.Queue[pb.WatchTopicsRequest | None] = asyncio.Queue()
        self.checks = DeliveryChecks(self._commit_check, interval_s=0.001)
        self.checks_committed = 0
        self.checks_fail: Exception | None = None
        api = TopicApi(self.hub, self.checks, lambda _, refusal: self.noted.append(refusal.reason))
        self.answers = api.WatchTopics(self._asked(), None)

    async def _asked(self) -> AsyncIterator[pb.WatchTopicsRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _commit_check(self) -> None:
        if self.checks_fail:
            raise self.checks_fail
        self.checks_committed += 1

    def ask(self, add: tuple[str, ...] = (), remove: tuple[str, ...] = (), checks: bool = False) -> None:
        self._requests.put_nowait(pb.WatchTopicsRequest(add_topics=add, remove_topics=remove, delivery_checks=checks))

    def end(self) -> None:
        self._requests.put_nowait(None)

    def commit(self, topic: str, *payloads: bytes) -> None:
        self.hub.publish(topic, self.store.append(topic, *payloads))

    def replace(self, *payloads: bytes) -> None:
        """T has another past: these events, in another lineage."""
        self.store.lineage, self.store.events[T] = "e2", list(payloads)
        self.hub.restart()

    async def next(self) -> pb.WatchTopicsResponse:
        async with asyncio.timeout(60):
            return await anext(self.answers)


async def test_a_slow_reader_is_told_the_head_instead_of_what_found_no_room() -> None:
    stream = Stream(TopicLimits(pending_bytes=1000))
    stream.ask((T, U))
    assert len((await stream.next()).watched) == 2
    for _ in range(10):
        stream.commit(T, b"x" * 400)
    stream.commit(U, b"y" * 10)
    answer = await stream.next()
    assert [(watched.topic, watched.head) for watched in answer.watched] == [(T, 10)]
    assert [batch.topic for batch in answer.batches] == [U]
    assert stream.report.frames_dropped > 0
    stream.commit(T, b"z")
    assert seqs(await stream.next()) == [11]


async def test_what_is_large_is_cut_into_messages() -> None:
    stream = Stream()
    stream.ask((T, U))
    await stream.next()
    for topic in (T, U):
        stream.commit(topic, b"x" * (ANSWER_BYTES + 1))
    assert [[batch.topic for batch in (await stream.next()).batches] for _ in range(2)] == [[T], [U]]


async def test_a_store_that_is_away_ends_the_stream_with_its_refusal() -> None:
    stream = Stream()
    stream.store.away = True
    stream.ask((T,))
    with pytest.raises(Refusal) as caught:
        await stream.next()
    assert caught.value.reason == "unavailable"
    assert stream.report.watched == 0


async def test_a_message_that_breaks_a_rule_ends_the_stream() -> None:
    stream = Stream()
    stream.ask(tuple(f"t{number}" for number in range(1001)))
    with pytest.raises(Refusal) as caught:
        await stream.next()
    assert (caught.value.reason, caught.value.field) == ("invalid_value", "add_topics")


async def test_what_is_refused_is_noted_and_registered_nowhere() -> None:
    stream = Stream()
    gone = T.replace("6X", "6Z")
    stream.ask((T, gone, "nonsense"))
    answer = await stream.next()
    assert {one.topic: one.reason for one in answer.refused} == {gone: "not_found", "nonsense": "invalid_topic"}
    assert sorted(stream.noted) == ["invalid_topic", "not_found"]
    assert stream.report.watched == 1
    assert not stream.hub.watches(gone)
    stream.end()
    with pytest.raises(StopAsyncIteration):
        await stream.next()
    assert stream.report.watched == 0
    assert not stream.hub.watches(T)


async def test_commits_that_come_in_another_order_are_handed_out_in_theirs() -> None:
    stream = Stream()
    repairing = asyncio.create_task(stream.hub.run())
    stream.ask((T,))
    await stream.next()
    first, second = stream.store.append(T, b"1"), stream.store.append(T, b"2")
    stream.hub.publish(T, second)
    got: list[int] = []
    while len(got) < 2:
        got += seqs(await stream.next())
    stream.hub.publish(T, first)
    stream.commit(T, b"3")
    assert [*got, *seqs(await stream.next())] == [1, 2, 3]
    repairing.cancel()


async def test_what_nobody_told_the_hub_is_found_by_looking_and_a_look_that_fails_is_made_again() -> None:
    stream = Stream(TopicLimits(poll_interval_ms=5))
    repairing = asyncio.create_task(stream.hub.run())
    stream.ask((T,))
    await stream.next()
    stream.store.away = True
    stream.store.append(T, b"1", b"2")
    await asyncio.sleep(0.02)
    stream.store.away = False
    assert seqs(await stream.next()) == [1, 2]
    repairing.cancel()


async def test_another_past_is_told_to_all_streams() -> None:
    stream = Stream()
    stream.ask((T,))
    await stream.next()
    stream.commit(T, b"old")
    stream.replace(b"a", b"b")
    (watched,) = (answer := await stream.next()).watched
    assert (watched.epoch, watched.head, list(answer.batches)) == ("e2", 2, [])
    stream.commit(T, b"c")
    (batch,) = (await stream.next()).batches
    assert (batch.epoch, batch.first_seq) == ("e2", 3)


async def test_where_topics_stood_is_not_said_of_another_past() -> None:
    """The log is replaced while it is asked. What it had was longer, and would hide what comes next."""
    stream = Stream()
    stream.store.append(T, b"1", b"2", b"3", b"4", b"5")

    async def replaced() -> None:
        stream.replace(b"a", b"b")

    stream.store.meanwhile = replaced
    stream.ask((T,))
    (watched,) = (await stream.next()).watched
    assert (watched.epoch, watched.head) == ("e2", 2)
    stream.commit(T, b"c")
    (batch,) = (await stream.next()).batches
    assert (batch.epoch, batch.first_seq) == ("e2", 3)


async def test_what_was_read_of_one_past_is_not_handed_out_in_another() -> None:
    """The log is replaced while the hub reads what it missed, and the topic stands anew before the answer comes."""
    stream = Stream()
    repairing = asyncio.create_task(stream.hub.run())
    stream.ask((T,))
    await stream.next()
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def slow_page() -> None:
        reading.set()
        await go_on.wait()

    async def slow() -> None:
        stream.store.meanwhile = slow_page  # after the description comes the page

    stream.store.meanwhile = slow
    stream.store.append(T, b"1", b"2", b"3", b"4")
    stream.hub.read_again(lambda topic: topic == T)
    await reading.wait()
    stream.replace(b"a", b"b")
    (watched,) = (await stream.next()).watched
    assert (watched.epoch, watched.head) == ("e2", 2)
    go_on.set()
    for _ in range(10):
        await asyncio.sleep(0)
    stream.commit(T, b"c")
    (batch,) = (await stream.next()).batches
    assert (batch.first_seq, len(batch.frames), b"c" in batch.frames[0]) == (3, 1, True)
    repairing.cancel()
    await asyncio.gather(repairing, return_exceptions=True)


async def test_delivery_checks_come_when_they_were_heard_of_and_to_those_who_asked() -> None:
    asking, other = Stream(), Stream()
    asking.ask((T,), checks=True)
    other.ask((T,))
    for stream in (asking, other):
        assert len((await stream.next()).watched) == 1
        stream.checks.heard(1)
        stream.checks.heard(2)
        stream.commit(T, b"x")
    answer = await asking.next()
    assert (seqs(answer), answer.delivery_check) == ([1], 2), "the newest is enough"
    answer = await other.next()
    assert (seqs(answer), answer.delivery_check) == ([1], 0)


@pytest.mark.parametrize("fails", [Refusal("unavailable", "the database is away"), ValueError("a defect")], ids=repr)
async def test_checks_are_committed_while_a_stream_wants_them_and_after_failures(fails: Exception) -> None:
    stream = Stream()
    running = asyncio.create_task(stream.checks.run())
    stream.ask((T,))
    await stream.next()
    for _ in range(10):
        await asyncio.sleep(0)
    assert stream.checks_committed == 0
    stream.checks_fail = fails
    stream.ask((U,), checks=True)
    await stream.next()
    stream.checks_fail = None
    await eventually(lambda: stream.checks_committed > 1)
    stream.end()
    with pytest.raises(StopAsyncIteration):
        await stream.next()
    committed = stream.checks_committed
    await asyncio.sleep(0.05)
    assert stream.checks_committed <= committed + 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_topic_whose_next_events_were_pruned_is_said_again() -> None:
    stream = Stream()
    running = asyncio.create_task(stream.hub.run())
    stream.ask((T,))
    assert [watched.head for watched in (await stream.next()).watched] == [0]
    stream.store.append(T, b"1", b"2", b"3")  # word of it got lost
    stream.store.floor = 2
    stream.hub.read_again(lambda topic: topic == T)
    assert [(watched.floor, watched.head) for watched in (await stream.next()).watched] == [(2, 3)]
    stream.commit(T, b"4")
    assert seqs(await stream.next()) == [4]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_nothing_that_lies_after_a_lost_event_is_handed_out_when_a_hole_is_read() -> None:
    stream = Stream()
    running = asyncio.create_task(stream.hub.run())
    stream.ask((T, U))
    await stream.next()
    for topic in (T, U):
        stream.store.append(topic, b"1", b"2", b"3", b"4")  # word of it got lost
    stream.store.lost = 3
    stream.hub.read_again(lambda topic: topic == T)
    assert seqs(await stream.next()) == [1, 2]
    stream.hub.read_again(lambda topic: True)
    answer = await stream.next()
    assert [(batch.topic, len(batch.frames)) for batch in answer.batches] == [(U, 2)]
    stream.store.lost = 0  # it was put back
    stream.commit(T, b"5")
    assert seqs(await stream.next()) == [3, 4, 5]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_long_answer_of_one_topic_or_about_many_topics_is_cut() -> None:
    stream = Stream(TopicLimits(pending_bytes=64 * ANSWER_BYTES, watched_topics=100_000))
    names = [f"run:run_{number:026d}:events" for number in range(20_000)]
    stream.store.events |= {name: [] for name in names}
    for start in range(0, len(names), 1000):
        stream.ask(tuple(names[start : start + 1000]))
    watched: list[str] = []
    while len(watched) < len(names):
        answer = await stream.next()
        assert answer.ByteSize() <= ANSWER_BYTES
        watched += [one.topic for one in answer.watched]
    stream.hub.restart()
    again: list[str] = []
    while len(again) < len(names):
        answer = await stream.next()
        assert answer.ByteSize() <= ANSWER_BYTES
        again += [one.topic for one in answer.watched]
    assert sorted(again) == sorted(watched) == names
    topic = names[0]
    stream.commit(topic, *[bytes(1000)] * 3000)
    told: list[int] = []
    while len(told) < 3000:
        answer = await stream.next()
        assert answer.ByteSize() <= ANSWER_BYTES + 100_000
        told += seqs(answer)
    assert told == list(range(1, 3001))


async def test_a_head_that_was_read_earlier_hides_nothing_from_a_watcher() -> None:
    """Of two watchers, the one that asked first is answered last: events in between were handed out to nobody."""
    store, hub_report = MemoryTopics({T: [b"1"]}), Counted()
    hub = TopicHub(store, TopicLimits(), hub_report)
    with hub.watcher(lambda: None) as slow, hub.watcher(lambda: None) as quick:
        hub.add(slow, [T])
        hub.add(quick, [T])

        async def answered_first() -> None:
            for payload in (b"2", b"3"):
                hub.publish(T, store.append(T, payload))
            await hub.describe(quick)

        store.meanwhile = answered_first
        await hub.describe(slow)
        assert [one.state.head for one in quick.take().watched] == [3]
        assert slow.take().watched == []
        await hub.describe(slow)
        assert [one.state.head for one in slow.take().watched] == [3]


async def test_a_refusal_that_was_read_before_its_topic_was_added_anew_refuses_nothing() -> None:
    """The topic is created in between: who adds it then must not hear that there is none."""
    store = MemoryTopics({})
    hub = TopicHub(store, TopicLimits(), Counted())
    with hub.watcher(lambda: None) as watcher:

        async def comes_to_be() -> None:
            hub.remove(watcher, [T])
            store.append(T, b"1")
            hub.add(watcher, [T])

        hub.add(watcher, [T])
        store.meanwhile = comes_to_be
        await hub.describe(watcher)
        assert watcher.take().refused == []
        await hub.describe(watcher)
        assert [(str(one.topic), one.state.head) for one in watcher.take().watched] == [(T, 1)]
        hub.publish(T, store.append(T, b"2"))
        assert [batch.first_seq for batch in watcher.take().batches] == [2]


async def test_a_failed_repair_is_made_again_though_nothing_else_is_marked() -> None:
    stream = Stream(TopicLimits(poll_interval_ms=0))
    running = asyncio.create_task(stream.hub.run())
    stream.ask((T,))
    await stream.next()
    stream.store.away = True
    stream.store.append(T, b"1")  # by another replica
    stream.hub.read_again(lambda topic: topic == T)
    for _ in range(10):
        await asyncio.sleep(0)
    stream.store.away = False
    assert seqs(await stream.next()) == [1]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_topic_that_a_defect_keeps_from_being_read_holds_up_no_other() -> None:
    stream = Stream(TopicLimits(poll_interval_ms=0))
    running = asyncio.create_task(stream.hub.run())
    stream.ask((T, U))
    await stream.next()
    defect = stream.store.defects[T] = ValueError("a defect")
    for topic in (T, U):
        stream.store.append(topic, b"1")  # by another replica
    stream.hub.read_again(lambda _: True)
    assert [batch.topic for batch in (await stream.next()).batches] == [U]
    assert stream.report.failures == [(T, defect)]
    stream.store.defects.clear()
    stream.hub.read_again(lambda _: True)
    assert [batch.topic for batch in (await stream.next()).batches] == [T]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_topics_are_asked_about_again_after_a_defect() -> None:
    stream = Stream(TopicLimits(poll_interval_ms=20))
    running = asyncio.create_task(stream.hub.run())
    stream.ask((T,))
    await stream.next()
    stream.store.defects[""] = defect = ValueError("a defect")
    stream.store.append(T, b"1")  # by another replica
    stream.hub.read_again(lambda _: True)
    await eventually(lambda: len(stream.report.failures) > 1)
    stream.store.defects.clear()
    assert [batch.topic for batch in (await stream.next()).batches] == [T]
    assert set(stream.report.failures) == {("", defect)}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_marked_during_its_repair_is_read_again() -> None:
    stream = Stream(TopicLimits(poll_interval_ms=0))
    running = asyncio.create_task(stream.hub.run())
    stream.ask((T, U))
    await stream.next()

    async def more() -> None:
        stream.store.append(T, b"2")
        stream.store.append(U, b"1")
        stream.hub.read_again(lambda _: True)

    async def described() -> None:
        stream.store.meanwhile = more  # while the page is read

    stream.store.meanwhile = described
    stream.store.append(T, b"1")
    stream.hub.read_again(lambda topic: topic == T)
    told: dict[str, list[int]] = {T: [], U: []}
    while told != {T: [1, 2], U: [1]}:
        for batch in (await stream.next()).batches:
            told[batch.topic] += range(batch.first_seq, batch.first_seq + len(batch.frames))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_marks_that_come_all_the_time_put_no_look_at_the_others_off() -> None:
    stream = Stream(TopicLimits(poll_interval_ms=20))
    running = asyncio.create_task(stream.hub.run())
    stream.ask((T, U))
    await stream.next()
    stream.store.append(U, b"1")  # word of it got lost

    async def marked_all_the_time() -> None:
        while True:
            stream.hub.read_again(lambda topic: topic == T)
            await asyncio.sleep(0)

    marking = asyncio.create_task(marked_all_the_time())
    answer = await stream.next()
    assert [(batch.topic, batch.first_seq) for batch in answer.batches] == [(U, 1)]
    for task in (marking, running):
        task.cancel()
    await asyncio.gather(marking, running, return_exceptions=True)
