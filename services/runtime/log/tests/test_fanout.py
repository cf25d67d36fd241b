"""What a replica commits is told to the others by the commit itself: at once, and only if it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from oa_platform.telemetry.tracing import sampled_traceparent
from oa_platform.tests.traces import collected, span
from oa_runlog.authority.commands import CreateRun
from oa_runlog.events import EventType
from oa_testing.postgres import Database, patient_settings
from oa_testing.waiting import eventually
from services.runtime.authority.domain import Head
from services.runtime.log.app.fanout import Fanout, publisher
from services.runtime.log.domain.batch import Batch, wanted_by
from services.runtime.log.domain.positions import MAX_POSITIONS, positions_of
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.store.fanout import CHECK_CHANNEL, PostgresFanout, PostgresNotification
from services.runtime.log.store.log import PostgresLog
from services.runtime.log.tests.one_sequencer import FAST, ORG, PARTITION, SPEC, USER, replica, run_id_in

_NEVER_S = 3600.0


@dataclass
class Replica:
    """One that hears of the others; `heard` is what is known of PARTITION."""

    heard: list[int] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def hint(self, partition: int, position: int, traceparent: str) -> None:
        if partition == PARTITION:
            self.heard.append(position)
            self.traces.append(traceparent)
            self.news.set()

    async def hears_of(self, position: int) -> None:
        async with asyncio.timeout(60):
            while position not in self.heard:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def hearing(database: Database, replica_id: str) -> AsyncIterator[Replica]:
    """A replica that has looked at the heads, and won't again."""
    settings = patient_settings(database.runtime)
    one = Replica()
    fanout = PostgresFanout(settings, replica_id, one.hint, lambda: None, _NEVER_S)
    task = asyncio.create_task(fanout.run())
    try:
        await one.hears_of(0)
        one.heard.clear()
        one.traces.clear()
        yield one
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_commit_is_told_and_what_was_not_stored_never_is(runtime_database: Database) -> None:
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(replica(runtime_database.runtime))
        other = await stack.enter_async_context(hearing(runtime_database, "other"))
        telling = PostgresLog(rig.postgres, PostgresNotification("one"))
        await _create(telling, "rolled back", fails=True)
        await _store_on_a_head_that_has_moved(telling)
        assert await _create(telling, "stored") == 1
        await other.hears_of(1)
        assert other.heard == [1]


async def test_a_traced_commit_is_told_with_its_trace_and_replicas_of_before_read_its_places(
    runtime_database: Database,
) -> None:
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(replica(runtime_database.runtime))
        other = await stack.enter_async_context(hearing(runtime_database, "other"))
        telling = PostgresLog(rig.postgres, PostgresNotification("one"))
        await _create(telling, "untraced")
        with collected(), span("commit"):
            await _create(telling, "traced")
            (payload,) = PostgresNotification("one").arguments({PARTITION: Head(2, b"")})
            traceparent = sampled_traceparent()
        await other.hears_of(2)
    assert other.traces == ["", traceparent]
    assert traceparent
    assert positions_of(payload.partition(" ")[2]) == [(PARTITION, 2)]


async def test_a_fan_out_that_tells_after_the_commit_adds_nothing_to_it(runtime_database: Database) -> None:
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(replica(runtime_database.runtime))
        other = await stack.enter_async_context(hearing(runtime_database, "other"))
        assert await _create(PostgresLog(rig.postgres), "silent") == 1
        assert await _create(PostgresLog(rig.postgres, PostgresNotification("one")), "told") == 2
        await other.hears_of(2)
        assert other.heard == [2]


async def test_what_another_role_says_on_our_channels_is_a_hint_and_fails_nothing(runtime_database: Database) -> None:
    checks = list[int]()
    fanout = PostgresFanout(patient_settings(runtime_database.runtime), "one", lambda *_: None, lambda: None, _NEVER_S)
    fanout.on_delivery_check(checks.append)
    task = asyncio.create_task(fanout.run())
    await eventually(lambda: fanout.connected)
    stranger = await asyncpg.connect(runtime_database.projector)
    for text in ("", "x", "-1", "²", "1.5", str(2**63), "9" * 5_000, str(2**63 - 1), "7"):
        await stranger.execute("SELECT pg_notify($1, $2)", CHECK_CHANNEL, text)
    await stranger.close()
    await eventually(lambda: 7 in checks)
    assert checks == [2**63 - 1, 7]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_this_replica_committed_itself_is_found_if_its_answer_was_lost(runtime_database: Database) -> None:
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(replica(runtime_database.runtime))
        own = await stack.enter_async_context(hearing(runtime_database, "one"))
        await _create(PostgresLog(rig.postgres, PostgresNotification("one")), "mine")
        await own.hears_of(1)


async def _create(store: PostgresLog, key: str, *, fails: bool = False) -> int:
    """Create a run in PARTITION; returns the position of its event."""
    command = CreateRun.of(run_id_in(PARTITION), ORG, USER, SPEC, key)
    with suppress(ZeroDivisionError):
        async with store.session() as session, session.transaction([PARTITION]) as transaction:
            snapshot = await transaction.read(wanted_by([command]))
            batch = Batch(transaction.heads, snapshot, FAST)
            batch.apply(command, PARTITION)
            await transaction.store(batch.changes, snapshot.now_ns)
            if fails:
                raise ZeroDivisionError
    return batch.heads[PARTITION].position


async def _store_on_a_head_that_has_moved(store: PostgresLog) -> None:
    command = CreateRun.of(run_id_in(PARTITION), ORG, USER, SPEC, "moved")
    async with store.session() as session:
        async with session.transaction([PARTITION]) as transaction:
            snapshot = await transaction.read(wanted_by([command]))
        before = {PARTITION: Head(7, b"c" * 32)}
        batch = Batch(before, snapshot, FAST)
        batch.apply(command, PARTITION)
        assert not await session.store(before, [], batch.changes, snapshot.now_ns)


def test_a_notification_fits_whatever_a_batch_has_grown() -> None:
    heads = {number: Head(2**63 - 1, b"") for number in range(10_000, 10_000 + 2 * MAX_POSITIONS)}
    with collected(), span("commit"):
        (payload,) = PostgresNotification("rep_" + "0" * 26).arguments(heads)
    assert len(payload) < 8000
    assert len(payload.split(" ")) == 1 + MAX_POSITIONS


class _Remembered:
    """A fan-out that tells after the commit."""

    def __init__(self) -> None:
        self.told: list[dict[int, int]] = []

    def publish(self, positions: Mapping[int, int]) -> None:
        self.told.append(dict(positions))

    async def run(self) -> None:
        raise NotImplementedError


def test_what_was_committed_goes_to_the_own_tail_and_to_the_others() -> None:
    own: list[object] = []
    others = _Remembered()
    fanout: Fanout = others
    last = LogRecord(9, "run_2", 1, EventType.TEXT_DELTA, b"")
    records = {3: [LogRecord(n, "run_1", n, EventType.TEXT_DELTA, b"") for n in (5, 6)], 4: [last]}
    publisher(own.append, fanout)(records)
    assert own == [records]
    assert others.told == [{3: 6, 4: 9}]
