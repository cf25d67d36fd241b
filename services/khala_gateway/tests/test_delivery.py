"""Subscribing, joining and resuming over real sockets."""

import asyncio
import random

import pytest
import structlog

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.feed import FeedLimits
from oa_khala.frames import Cursor, Form, Plan, TopicState
from oa_testing.metrics import value_of
from oa_testing.waiting import PATIENCE_S, eventually
from services.khala_gateway.connections.metrics import CLOSES
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.door import GrpcTopicSource
from services.khala_gateway.sources.limits import SourceLimits
from services.khala_gateway.sources.metrics import UPSTREAM_UP
from services.khala_gateway.tests.fake_upstream import FakeUpstream, Faults
from services.khala_gateway.tests.harness import T2, USER, Client, Limits, Stack, T, U, buffered_bytes, running

SMALL = Limits(hub=HubLimits(feed=FeedLimits(ring_events=8), page_frames=7, slice_frames=3, audit_interval_ms=100))


@pytest.mark.parametrize("form", Form)
async def test_history_then_caught_up_then_live(form: Form) -> None:
    async with running() as stack:
        client = await stack.connect(T, form=form)
        await client.subscribe(T)
        assert await client.next(frames.Subscribed) == frames.Subscribed(T, "e1", 0, 10, Plan.REPLAY, 0)
        assert (await client.next(frames.CaughtUp)).seq == 10
        stack.runtime.append(T, 3)
        await client.up_to(T, 13)
        assert client.seqs[T] == list(range(1, 14))
        assert client.payloads == [b"e1:%d" % seq for seq in range(1, 14)]


async def test_both_sources_on_one_connection() -> None:
    async with running() as stack:
        client = await stack.connect(T, U)
        await client.follow(U, Cursor("e1", 2))
        assert (await client.follow(T, Cursor("e1", 10))).plan is Plan.LIVE
        stack.projector.append(U)
        stack.runtime.append(T)
        await client.up_to(U, 4)
        await client.up_to(T, 11)
        assert client.seqs == {U: [3, 4], T: [11]}


async def test_a_cut_connection_is_resumed_from_its_cursor() -> None:
    async with running() as stack:
        first = await stack.connect(T)
        await first.follow(T)
        first.socket.transport.abort()
        stack.runtime.append(T, 5)
        second = await stack.connect(T)
        await second.follow(T, Cursor("e1", first.seqs[T][-1]))
        await second.up_to(T, 15)
        assert first.seqs[T] + second.seqs[T] == list(range(1, 16))


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        (Cursor("e0", 7), "epoch_mismatch"),
        (Cursor("", 7), "epoch_mismatch"),
        (Cursor("e1", 11), "cursor_ahead_of_head"),
        (Cursor("e1", 3), "retention_floor_breach"),
    ],
)
async def test_a_stale_cursor_is_refused_and_the_topic_can_be_started_afresh(cursor: Cursor, reason: str) -> None:
    async with running() as stack:
        stack.runtime.logs[T].floor = 4
        client = await stack.connect(T)
        await client.subscribe(T, cursor)
        error = await client.next(frames.ErrorFrame)
        assert (error.topic, error.reason, error.stale) == (T, reason, TopicState("e1", 4, 10))
        await client.follow(T)
        assert client.seqs[T] == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("form", Form)
async def test_a_cursor_of_other_content_is_refused_though_its_numbers_fit(form: Form) -> None:
    async with running() as stack:
        log = stack.runtime.logs[T]
        client = await stack.connect(T, form=form)
        for seq in (4, 10):
            await client.subscribe(T, Cursor("e1", seq, b"o" * 32))
            error = await client.next(frames.ErrorFrame)
            assert (error.topic, error.reason, error.stale) == (T, "epoch_mismatch", TopicState("e1", 0, 10))
            assert error.chain == log.chain(seq)
        await client.follow(T, Cursor("e1", 4, log.chain(4)))
        await client.follow(T, Cursor("e1", 10, log.chain(10)))
        assert client.seqs[T] == [5, 6, 7, 8, 9, 10]


async def test_many_that_come_with_one_cursor_cost_few_questions() -> None:
    async with running() as stack:
        runtime = stack.runtime
        clients = [await stack.connect(T) for _ in range(20)]
        await clients[0].follow(T)
        runtime.replays.clear()
        runtime.replay_gate.clear()
        cursor = Cursor("e1", 10, runtime.logs[T].chain(10))
        for client in clients:
            await client.subscribe(T, cursor)
            await client.send(frames.Ping(1))
            await client.next(frames.Heartbeat)
        runtime.replay_gate.set()
        for client in clients:
            assert (await client.next(frames.Subscribed)).plan is Plan.LIVE
        assert [request.after_chain for request in runtime.replays] == [cursor.chain]


async def test_a_cursor_is_not_served_while_its_source_can_not_confirm_it() -> None:
    async with running() as stack:
        client = await stack.connect(T)
        await client.follow(T)
        await stack.runtime.stop()
        cursor = Cursor("e1", 10, stack.runtime.logs[T].chain(10))
        await client.subscribe(T, cursor)
        error = await client.next(frames.ErrorFrame)
        assert (error.reason, error.retry_after_ms > 0) == ("unavailable", True)
        assert error.message == "the service runtime can't be reached now; try again in a moment"
        await stack.runtime.start()
        while True:
            await client.subscribe(T, cursor)
            if isinstance(frame := await client.receive(), frames.Subscribed):
                break
            assert isinstance(frame, frames.ErrorFrame | frames.CaughtUp | frames.Heartbeat)
            await asyncio.sleep(0.05)
        assert (frame.plan, frame.from_seq) == (Plan.LIVE, 10)


async def test_nobody_is_led_past_an_event_that_is_missing() -> None:
    async with running() as stack:
        stack.runtime.logs[T].damaged_at = 7
        stack.runtime.page_frames = 6
        client = await stack.connect(T)
        await client.subscribe(T)
        await client.next(frames.Subscribed)
        error = await client.next(frames.ErrorFrame)
        assert (error.topic, error.reason) == (T, "archive_damaged")
        assert client.seqs[T] == [1, 2, 3, 4, 5, 6]


async def test_subscribing_again_restarts_delivery_at_the_given_cursor() -> None:
    async with running() as stack:
        client = await stack.connect(T)
        await client.follow(T)
        await client.follow(T, Cursor("e1", 8))
        assert client.seqs[T] == [*range(1, 11), 9, 10]
        await client.send(frames.Unsubscribe((T,)))
        await client.send(frames.Ping(5))
        assert (await client.next(frames.Heartbeat)).heads == ()
        stack.runtime.append(T)
        await client.send(frames.Ping(6))
        await client.next(frames.Heartbeat)
        assert client.seqs[T][-1] == 10


async def test_a_topic_that_does_not_exist_is_not_found() -> None:
    async with running() as stack:
        client = await stack.connect(T2)
        await client.subscribe(T2)
        error = await client.next(frames.ErrorFrame)
        assert (error.topic, error.reason) == (T2, "not_found")
        assert not stack.hub.feeds


@pytest.mark.parametrize("seed", range(5))
async def test_a_fanout_that_loses_repeats_and_reorders_is_delivered_exactly(seed: int) -> None:
    upstream = FakeUpstream(Faults(lose=0.3, repeat=0.3, delay=0.3))
    upstream.faults.rng.seed(seed)
    async with running(SMALL, upstream) as stack:
        clients = [await stack.connect(T) for _ in range(4)]
        for start, client in enumerate(clients):
            await client.subscribe(T, Cursor("e1", 3 * start))
            upstream.append(T, 20)
        for _ in range(10):
            upstream.append(T, 13)
            await asyncio.sleep(0.002)
        for start, client in enumerate(clients):
            await client.until_up_to(T, upstream.logs[T].head)
            assert client.seqs[T] == list(range(3 * start + 1, upstream.logs[T].head + 1))


async def test_the_loss_of_the_very_last_frame_is_noticed() -> None:
    async with running(SMALL) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        stack.runtime.faults.lose = 1.0
        stack.runtime.append(T)
        await client.up_to(T, 11)


async def test_who_falls_off_the_ring_is_served_from_history() -> None:
    async with running(SMALL) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        stack.runtime.append(T, 300)
        await client.up_to(T, 310)
        assert client.seqs[T] == list(range(1, 311))


async def test_many_at_the_same_cursor_cost_one_read_and_those_who_come_a_moment_later_none() -> None:
    async with running() as stack:
        stack.runtime.replay_gate.clear()
        clients = [await stack.connect(T) for _ in range(20)]
        for client in clients:
            await client.subscribe(T)
            await client.next(frames.Subscribed)
        await eventually(lambda: bool(stack.runtime.replays))
        await asyncio.sleep(0.05)
        stack.runtime.replay_gate.set()
        for client in clients:
            await client.next(frames.CaughtUp)
        for _ in range(3):
            late = await stack.connect(T)
            await late.follow(T)
            assert late.seqs[T] == list(range(1, 11))
        assert len(stack.runtime.replays) == 1


async def test_a_topic_is_dropped_some_time_after_its_last_subscriber() -> None:
    limits = Limits(hub=HubLimits(linger_ms=100))
    async with running(limits) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        await client.send(frames.Unsubscribe((T,)))
        await client.follow(T, Cursor("e1", 10))
        await asyncio.sleep(0.2)
        assert len(stack.hub.feeds) == 1, "it had a subscriber again in time"
        await client.socket.close()
        await eventually(lambda: not stack.hub.feeds)
        await eventually(lambda: not any(T in watcher.topics for watcher in stack.runtime.watchers))


async def test_sockets_stay_open_while_the_source_is_away_and_nothing_is_lost() -> None:
    async with running(SMALL) as stack:
        following, behind = await stack.connect(T), await stack.connect(T)
        await following.follow(T)
        await stack.runtime.stop()
        await behind.subscribe(T)
        assert (await behind.next(frames.Subscribed)).head == 10
        stack.runtime.append(T, 40)
        await following.send(frames.Ping(1))
        assert (await following.next(frames.Heartbeat)).heads[0].head == 10
        await stack.runtime.start()
        for client in (following, behind):
            await client.until_up_to(T, 50)
            assert client.seqs[T] == list(range(1, 51))


async def test_a_source_that_comes_back_is_asked_for_its_topics_at_once() -> None:
    """And not only by the next audit: requests of the broken stream must not swallow those of the new one."""
    async with running(Limits(hub=HubLimits(audit_interval_ms=600_000))) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        for head in (11, 12, 13):
            await stack.runtime.stop()
            stack.runtime.append(T)
            await stack.runtime.start()
            await client.up_to(T, head)
        assert client.seqs[T] == list(range(1, 14))


async def test_another_lineage_under_a_subscription_is_a_stale_cursor() -> None:
    async with running(SMALL) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        await stack.runtime.stop()
        stack.runtime.restore(T, "e2", 4)
        await stack.runtime.start()
        error = await client.next(frames.ErrorFrame)
        assert (error.topic, error.reason, error.stale) == (T, "epoch_mismatch", TopicState("e2", 0, 4))
        subscribed = await client.follow(T)
        assert (subscribed.epoch, client.payloads[-4:]) == ("e2", [b"e2:%d" % seq for seq in range(1, 5)])
        stack.runtime.append(T)
        await client.up_to(T, 5)


async def test_a_lineage_that_changes_while_the_stream_stands_is_noticed_by_its_frames() -> None:
    async with running(Limits(hub=HubLimits(audit_interval_ms=60_000))) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        stack.runtime.restore(T, "e2", 4)
        assert (await client.next(frames.ErrorFrame)).reason == "epoch_mismatch"


async def test_a_hole_that_was_pruned_meanwhile_is_a_stale_cursor() -> None:
    async with running(SMALL) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        await stack.runtime.stop()
        stack.runtime.append(T, 10)
        stack.runtime.logs[T].floor = 15
        await stack.runtime.start()
        error = await client.next(frames.ErrorFrame)
        assert (error.reason, error.stale) == ("retention_floor_breach", TopicState("e1", 15, 20))
        await client.follow(T)
        assert client.seqs[T][-5:] == [16, 17, 18, 19, 20]


async def test_who_comes_after_a_pruning_that_the_gateway_missed_is_served_at_the_second_asking() -> None:
    async with running(Limits(hub=HubLimits(audit_interval_ms=60_000, kept_pages_ms=1))) as stack:
        first, second = await stack.connect(T), await stack.connect(T)
        await first.follow(T)
        await asyncio.sleep(0.01)
        stack.runtime.logs[T].floor = 6
        await second.subscribe(T)
        assert (await second.next(frames.Subscribed)).floor == 0
        stale = await second.next(frames.ErrorFrame)
        assert stale.reason == "retention_floor_breach"
        assert stale.stale is not None
        assert (stale.stale.floor, stale.stale.head) == (6, 10), "where the topic stands, not where it stood"
        assert (await second.follow(T)).floor == 6
        assert second.seqs[T] == [7, 8, 9, 10]
        stack.runtime.append(T)
        await first.up_to(T, 11)
        assert first.seqs[T] == list(range(1, 12)), "who had what was pruned is not concerned"


async def test_without_its_source_a_topic_is_unavailable_until_it_is_there() -> None:
    async with running(Limits(hub=HubLimits(carry_timeout_ms=2_000))) as stack:
        await stack.runtime.stop()
        client = await stack.connect(T, U)
        await client.subscribe(T)
        error = await client.next(frames.ErrorFrame)
        assert (error.topic, error.reason, error.retry_after_ms) == (T, "unavailable", 1_000)
        await client.follow(U)
        assert client.seqs[U] == [1, 2, 3], "the other source is not concerned"
        await stack.runtime.start()
        await eventually(lambda: bool(stack.runtime.watchers))
        await client.follow(T)


async def test_a_source_that_is_away_for_a_moment_leaves_the_gateway_ready() -> None:
    async with running(Limits(source=SourceLimits(gone_ms=3_600_000))) as stack:
        source = stack.sources["runtime"]
        unreached = GrpcTopicSource("runtime", source._channel, lambda: stack.hub, random.random)
        with pytest.raises(Refusal, match="unavailable"):
            await unreached.check()
        await eventually(lambda: source.refusal is None)
        await source.check()
        await stack.runtime.stop()
        await eventually(lambda: source.refusal is not None)
        await source.check_delivery()
        await stack.runtime.start()
        await eventually(lambda: source.refusal is None)


async def test_a_source_that_stops_without_a_word_is_known_to_be_away_and_the_sockets_stay() -> None:
    limits = Limits(source=SourceLimits(ask_interval_ms=20, answer_ms=500))
    async with running(limits) as stack:
        client = await stack.connect(T, U)
        await client.follow(T)
        await client.follow(U)
        source = stack.sources["runtime"]
        await eventually(lambda: not source.away and not stack.sources["projector"].away)
        assert _runtime_up() == 1
        stack.runtime.ask_gate.clear()  # the stream stands all the while
        await eventually(lambda: source.away)
        assert _runtime_up() == 0
        await client.send(frames.Ping(1))
        away = {head.topic: head.source_away for head in (await client.next(frames.Heartbeat)).heads}
        assert away == {T: True, U: False}
        stack.runtime.ask_gate.set()
        await eventually(lambda: not source.away)
        assert _runtime_up() == 1
        await client.send(frames.Ping(2))
        assert not any(head.source_away for head in (await client.next(frames.Heartbeat)).heads)


async def test_a_stream_that_stands_and_brings_no_delivery_checks_any_more_has_stopped() -> None:
    limits = Limits(source=SourceLimits(ask_interval_ms=20, check_ms=300, gone_ms=600))
    async with running(limits) as stack:
        source = stack.sources["runtime"]
        await eventually(lambda: source.refusal is None)
        stack.runtime.check_delivery()
        with structlog.testing.capture_logs() as logs:
            await eventually(lambda: source.away)
            await _until_ready(source, False)
            asked = stack.runtime.asked
            stack.runtime.check_delivery(1)  # the same again, from a loop that says what it said last
            await eventually(lambda: any(entry["event"] == "upstream_silent" for entry in logs))
            assert source.away
            assert stack.runtime.asked == asked, "that it answers questions counts no longer"
            stack.runtime.check_delivery()
            await eventually(lambda: any(entry["event"] == "upstream_answers" for entry in logs))
        await _until_ready(source, False)
        await stack.runtime.stop()
        await stack.runtime.start()
        await eventually(lambda: not source.away)
        await _until_ready(source, True)  # a stream that has brought none yet: the source answers


async def _until_ready(source: GrpcTopicSource, is_ready: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await _ready(source) is not is_ready:
            await asyncio.sleep(0.01)


async def _ready(source: GrpcTopicSource) -> bool:
    try:
        await source.check_delivery()
    except Refusal:
        return False
    return True


async def test_a_source_that_does_not_accept_us_is_not_ready() -> None:
    runtime = FakeUpstream()
    runtime.refuses_watchers = True
    async with running(runtime=runtime) as stack:
        source = stack.sources["runtime"]
        await eventually(lambda: "service_not_accepted" in str(source.refusal))
        with pytest.raises(Refusal, match="service_not_accepted"):
            await source.check()
        runtime.refuses_watchers = False
        await eventually(lambda: source.refusal is None)


async def test_a_source_that_cannot_be_reached_says_why_before_and_after_it_was() -> None:
    async with running() as stack:
        source = stack.sources["runtime"]
        await eventually(lambda: source.refusal is None)
        port = stack.runtime.port
        with structlog.testing.capture_logs() as logs:
            await stack.runtime.stop()
            await eventually(lambda: any(entry["event"] == "upstream_unreachable" for entry in logs))
        said = next(entry for entry in logs if entry["event"] == "upstream_unreachable")
        assert said["source"] == "runtime"
        assert f"127.0.0.1:{port}" in said["why"]
        await source.check()
        await stack.runtime.start()
        await eventually(lambda: source.refusal is None)


def _slow_closes() -> float:
    return value_of(CLOSES.labels("slow_consumer"))


def _peak_buffered(stack: Stack) -> int:
    return max(buffered_bytes(socket) for socket in stack.server.sockets)


def _runtime_up() -> float:
    return value_of(UPSTREAM_UP.labels("runtime"))


async def test_a_non_reader_costs_a_bounded_buffer_and_is_closed_as_slow() -> None:
    limits = Limits().with_session(slow_consumer_ms=2_000).with_socket(write_high_bytes=64 * 1024, write_low_bytes=1024)
    limits = limits.with_hub(page_bytes=64 * 1024)
    closed_before = _slow_closes()
    async with running(limits) as stack:
        reader, sleeper = await stack.connect(T), await stack.connect(T)
        await sleeper.follow(T)
        await reader.follow(T)
        sleeper.socket.transport.pause_reading()
        reading = asyncio.create_task(reader.until_up_to(T, 2010))
        for _ in range(200):
            stack.runtime.append(T, 10, size=10_000)
            assert _peak_buffered(stack) <= 64 * 1024 * 3
            await asyncio.sleep(0)
        await reading
        assert _peak_buffered(stack) <= 64 * 1024 * 3
        assert reader.seqs[T] == list(range(1, 2011))
        await eventually(lambda: _slow_closes() > closed_before)
        sleeper.socket.transport.resume_reading()
        assert await sleeper.close_code() == ("slow_consumer", 4008)


async def test_who_reads_again_in_time_gets_everything() -> None:
    limits = Limits().with_socket(write_high_bytes=32 * 1024, write_low_bytes=1024)
    async with running(limits) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        client.socket.transport.pause_reading()
        for _ in range(100):
            stack.runtime.append(T, 10, size=5_000)
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        client.socket.transport.resume_reading()
        await client.until_up_to(T, 1010)
        assert client.seqs[T] == list(range(1, 1011))


async def test_draining_tells_each_connection_its_own_time_and_closes_when_due() -> None:
    async with running(Limits().with_port(drain_window_ms=300)) as stack:
        clients = [await stack.connect(T) for _ in range(3)]
        raw = await Client.open(stack.url)
        drained = asyncio.create_task(stack.server.__aexit__(None, None, None))
        delays = [(await client.next(frames.Draining)).reconnect_after_ms for client in clients]
        assert delays == [0, 75, 150]
        for client in clients:
            assert await client.close_code() == ("", 1012)
        assert (await raw.close_code())[1] == 1012
        await drained
        with pytest.raises(OSError, match="111"):
            await Client.open(stack.url)


async def test_a_busy_topic_does_not_hold_up_a_quiet_one() -> None:
    """The busy one has to be read from its source, which takes as long as the test wants."""
    async with running(SMALL) as stack:
        stack.runtime.create(T2, USER)
        client = await stack.connect(T, T2)
        await client.follow(T)
        await client.follow(T2)
        stack.runtime.replays.clear()
        stack.runtime.replay_gate.clear()
        stack.runtime.append(T, 3_000)
        await eventually(lambda: bool(stack.runtime.replays))
        stack.runtime.append(T2)
        await client.until_up_to(T2, 1)
        assert client.seqs[T][-1] < 3_010
        stack.runtime.replay_gate.set()
        await client.until_up_to(T, 3_010)
        assert client.seqs[T] == list(range(1, 3_011))


async def test_who_has_no_cursor_gets_the_snapshot_and_then_what_follows_it() -> None:
    async with running() as stack:
        stack.projector.logs[U].has_snapshot = True
        client = await stack.connect(U)
        await client.subscribe(U)
        subscribed = await client.next(frames.Subscribed)
        assert (subscribed.plan, subscribed.from_seq, subscribed.head) == (frames.Plan.SNAPSHOT, 3, 3)
        assert await client.next(frames.Snapshot) == frames.Snapshot(U, 3, b"as of 3")
        assert (await client.next(frames.CaughtUp)).seq == 3
        stack.projector.append(U, 2)
        await client.up_to(U, 5)
        assert client.seqs[U] == [4, 5]
        resumed = await stack.connect(U)
        assert (await resumed.follow(U, Cursor("e1", 4))).plan is frames.Plan.REPLAY, "who has a cursor goes on"


async def test_a_snapshot_ahead_of_the_feed_is_not_followed_by_what_it_holds() -> None:
    async with running(projector=FakeUpstream(Faults(lose=1.0))) as stack:
        stack.projector.logs[U].has_snapshot = True
        stack.projector.replay_gate.clear()
        client = await stack.connect(U)
        await client.subscribe(U)
        await eventually(lambda: stack.projector.snapshots == 1)
        stack.projector.append(U, 2)  # nobody tells the feed
        stack.projector.replay_gate.set()
        assert (await client.next(frames.Subscribed)).from_seq == 5
        assert (await client.next(frames.Snapshot)).seq == 5
        assert (await client.next(frames.CaughtUp)).seq == 5
        stack.projector.append(U)
        await client.up_to(U, 6)
        assert client.seqs[U] == [6]


async def test_many_who_come_at_once_cost_few_snapshots() -> None:
    async with running() as stack:
        stack.projector.logs[U].has_snapshot = True
        clients = [await stack.connect(U) for _ in range(20)]
        stack.projector.replay_gate.clear()
        for client in clients:
            await client.subscribe(U)
        await eventually(lambda: stack.projector.snapshots > 0 and len(stack.hub.feeds[U].subscribers) == 20)
        stack.projector.replay_gate.set()
        for client in clients:
            await client.next(frames.Subscribed)
            await client.next(frames.Snapshot)
        assert stack.projector.snapshots == 1


async def test_further_behind_than_the_budget_a_cursor_is_refused_where_there_is_a_snapshot() -> None:
    async with running() as stack:
        stack.projector.logs[U].has_snapshot = True
        stack.projector.append(U, 501)
        client = await stack.connect(U)
        await client.subscribe(U, Cursor("e1", 3))
        error = await client.next(frames.ErrorFrame)
        assert error.reason == "replay_budget_exceeded"
        assert error.stale is not None
        assert error.stale.snapshot_available
        await client.subscribe(U)
        assert (await client.next(frames.Subscribed)).from_seq == 504


async def test_a_snapshot_of_another_lineage_is_not_taken() -> None:
    async with running() as stack:
        log = stack.projector.logs[U]
        log.has_snapshot = True
        client = await stack.connect(U)
        stack.projector.replay_gate.clear()
        await client.subscribe(U)
        await eventually(lambda: stack.projector.snapshots == 1)
        log.epoch = "e2"
        stack.projector.replay_gate.set()
        assert (await client.next(frames.ErrorFrame)).reason == "unavailable"
        await client.subscribe(U)
        assert (await client.next(frames.Subscribed)).epoch == "e2"
