"""Snapshots over real sockets: of runs, in parts, and read once for many."""

import pytest

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.frames import Cursor, Form, Plan, TopicState
from oa_khala.topics import parse_topic
from oa_testing.waiting import eventually
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import TopicSnapshot
from services.khala_gateway.tests.fake_upstream import Log
from services.khala_gateway.tests.harness import Client, Limits, Stack, T, U, buffered_bytes, running

PART = 10_000
LIMITS = Limits().with_session(snapshot_part_bytes=PART)


def run_with_snapshot(stack: Stack, size: int) -> Log:
    """The run of the stack has a snapshot of about `size` bytes."""
    log = stack.runtime.logs[T]
    log.has_snapshot_on_request, log.snapshot_size = True, size
    return log


async def snapshot(client: Client) -> tuple[bytes, int]:
    """The payload of the snapshot that comes, and in how many frames."""
    parts = [await client.next(frames.Snapshot)]
    while parts[-1].part < parts[-1].parts:
        parts.append(await client.next(frames.Snapshot))
    return b"".join(part.payload for part in parts), len(parts)


@pytest.mark.parametrize("form", Form)
async def test_who_takes_the_snapshot_of_a_run_gets_it_in_parts_and_goes_on_with_its_chain(form: Form) -> None:
    async with running(LIMITS) as stack:
        log = run_with_snapshot(stack, 4 * PART)
        client = await stack.connect(T, form=form)
        await client.subscribe(T, snapshots=True)
        subscribed = await client.next(frames.Subscribed)
        assert (subscribed.plan, subscribed.from_seq, subscribed.head) == (Plan.SNAPSHOT, 10, 10)
        payload, parts = await snapshot(client)
        assert (payload, parts) == (log.snapshot(), 1 if form is Form.READABLE else -(-len(payload) // PART))
        assert len(payload) > 3 * PART
        assert (await client.next(frames.CaughtUp)).seq == 10
        stack.runtime.append(T, 3)
        await client.up_to(T, 13)
        assert client.seqs[T] == [11, 12, 13]
        resumed = await stack.connect(T)
        await resumed.subscribe(T, Cursor("e1", 10, subscribed.chain), snapshots=True)
        assert (await resumed.next(frames.Subscribed)).plan is Plan.REPLAY, "the chain is that of what the source has"


async def test_who_takes_none_gets_the_runs_events_from_its_floor() -> None:
    async with running(LIMITS) as stack:
        run_with_snapshot(stack, 4 * PART)
        client = await stack.connect(T)
        assert (await client.follow(T)).plan is Plan.REPLAY
        assert client.seqs[T] == list(range(1, 11))
        await client.subscribe(T, Cursor("e0", 4))
        error = await client.next(frames.ErrorFrame)
        assert error.stale is not None
        assert not error.stale.snapshot_available
        assert stack.runtime.snapshots == 0


async def test_a_list_in_parts_is_larger_than_one_in_a_frame() -> None:
    async with running(Limits().with_hub(list_snapshot_bytes=800_000)) as stack:
        stack.projector.logs[U].has_snapshot = True
        stack.projector.logs[U].snapshot_size = 2 << 20
        sizes = []
        for takes in (False, True):
            client = await stack.connect(U)
            await client.subscribe(U, snapshots=takes)
            await client.next(frames.Subscribed)
            sizes.append(tuple(map(int, (len((found := await snapshot(client))[0]), found[1]))))
        assert sizes == [(512 * 1024, 1), (800_000, 4)]


async def test_parts_wait_for_a_reader_that_takes_its_time() -> None:
    small = LIMITS.with_socket(write_high_bytes=2 * PART, write_low_bytes=PART, send_buffer_bytes=PART)
    async with running(small) as stack:
        log = run_with_snapshot(stack, 2 << 20)
        client = await stack.connect(T)
        client.socket.transport.pause_reading()
        await client.subscribe(T, snapshots=True)
        (held,) = stack.server.sockets
        await eventually(lambda: buffered_bytes(held) >= PART)
        await eventually(lambda: held._tcp is not None and buffered_bytes(held) <= 4 * PART)
        stack.runtime.append(T, 5)
        await eventually(lambda: stack.hub.feeds[T].head == 15)
        assert buffered_bytes(held) <= 4 * PART
        client.socket.transport.resume_reading()
        assert (await client.next(frames.Subscribed)).from_seq == 10
        assert (await snapshot(client))[0] == log.snapshot().replace(b"as of 15", b"as of 10")
        await client.up_to(T, 15)
        assert client.seqs[T] == [11, 12, 13, 14, 15]


async def test_many_who_come_one_after_the_other_cost_one_snapshot() -> None:
    async with running(LIMITS.with_hub(kept_snapshots_ms=600_000)) as stack:
        log = run_with_snapshot(stack, 4 * PART)
        for number in range(8):
            client = await stack.connect(T)
            await client.subscribe(T, snapshots=True)
            assert (await client.next(frames.Subscribed)).from_seq == 10
            await snapshot(client)
            await client.next(frames.CaughtUp)
            assert client.seqs.get(T, []) == list(range(11, 11 + number)), "and what came since"
            stack.runtime.append(T)
            await eventually(lambda: stack.hub.feeds[T].head == log.head)
        assert stack.runtime.snapshots == 1


async def test_a_snapshot_that_is_too_large_is_refused_and_the_events_can_be_had() -> None:
    async with running(LIMITS.with_hub(snapshot_max_bytes=PART)) as stack:
        run_with_snapshot(stack, 4 * PART)
        client = await stack.connect(T)
        await client.subscribe(T, snapshots=True)
        assert (await client.next(frames.ErrorFrame)).reason == "payload_too_large"
        assert (await client.follow(T)).plan is Plan.REPLAY


class Source:
    """Has a new snapshot each time."""

    away = False

    def __init__(self) -> None:
        self.seq = 0

    async def snapshot(self, topic: str, max_bytes: int) -> TopicSnapshot:
        if self.seq == 4:
            raise Refusal("unavailable", "away")
        self.seq += 1
        return TopicSnapshot("e1", self.seq, b"%d" % self.seq)


async def test_a_kept_snapshot_serves_its_lineage_down_to_the_floor_and_one_of_another_form_does_not() -> None:
    source = Source()
    snapshots = Snapshots({"runtime": source}, HubLimits())  # type: ignore[dict-item]
    topic = parse_topic(T)

    async def read(epoch: str = "e1", floor: int = 0, in_parts: bool = True) -> int:
        return (await snapshots.read(topic, TopicState(epoch, floor, 9), in_parts)).seq

    assert [await read(), await read(floor=1), await read(in_parts=False), await read(in_parts=False)] == [1, 1, 2, 2]
    assert [await read(floor=2), await read()] == [3, 3]
    assert [await read("e2"), await read()] == [4, 4], "of another lineage, it is asked for again"
    with pytest.raises(Refusal, match="unavailable"):
        await read(floor=5)
    assert await read() == 4


@pytest.mark.parametrize("has_snapshot", [True, False])
async def test_who_may_begin_with_a_snapshot_is_told_so_however_late_the_cursor_is_refused(has_snapshot: bool) -> None:
    async with running(Limits(hub=HubLimits(audit_interval_ms=60_000))) as stack:
        stack.runtime.logs[T].has_snapshot = has_snapshot
        first, second = await stack.connect(T), await stack.connect(T)
        await first.follow(T, Cursor("e1", 10))
        stack.runtime.logs[T].floor = 6
        await second.subscribe(T, Cursor("e1", 3))
        await second.next(frames.Subscribed)
        stale = (await second.next(frames.ErrorFrame)).stale
        assert stale == TopicState("e1", 6, 10, snapshot_available=has_snapshot)
