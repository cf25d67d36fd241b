"""The sequencer decides from its cache: the same answers as from the database, whatever others write meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest_asyncio

from oa_platform.system.ids import new_id
from oa_runlog import wire
from oa_runlog.authority.commands import Append, AssignRun, CreateRun, LoseLease, RequestCancel
from oa_runlog.events import Concurrency, Outcome, QueuePolicy, RunFinished
from oa_runlog.workers import WorkerStatus
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from services.runtime.log import metrics
from services.runtime.log.domain.batch import Applied
from services.runtime.log.limits import SequencerLimits
from services.runtime.log.tests.one_sequencer import (
    ORG,
    PARTITION,
    SPEC,
    USER,
    WORKER,
    Rig,
    append,
    check_log,
    refused,
    replica,
    run_id_in,
    text,
)
from services.runtime.receipts.store.receipts import PostgresReceipts
from services.runtime.tests.lost_events import LaggingStandby
from services.runtime.workers.app.ports import WorkerRecord
from services.runtime.workers.store.workers import PostgresWorkers

_WAITS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'sequencer-one' AND wait_event_type = 'Lock'
"""


@pytest_asyncio.fixture
async def rig(runtime_database: Database) -> AsyncIterator[Rig]:
    async with replica(runtime_database.runtime) as rig:
        yield rig


class Counted:
    """Batches since this was made, by how they were decided."""

    def __init__(self) -> None:
        self._before = self._all()

    def _all(self) -> Counter[str]:
        return Counter({how: int(value_of(metrics.BATCHES.labels(how))) for how in ("read", "cached", "overtaken")})

    def __call__(self) -> dict[str, int]:
        """How many, without those that were none."""
        return dict(self._all() - self._before)


async def test_appends_to_known_runs_are_stored_without_reading(rig: Rig, runtime_database: Database) -> None:
    run_id = await rig.started_run()
    counted = Counted()
    for number in range(5):
        applied = await rig.submit(append(run_id, f"k{number}", text(), text()))
        assert (applied.first_seq, applied.last_seq, applied.repeated) == (3 + 2 * number, 4 + 2 * number, False)
    assert counted() == {"cached": 5}
    logs = await check_log(runtime_database.runtime, [run_id])
    assert logs[run_id] == [record.data for record in rig.published]


async def test_what_is_not_new_is_answered_by_the_database(rig: Rig) -> None:
    run_id = await rig.started_run()
    await rig.submit(append(run_id, "a", text(b"first")))
    await rig.submit(append(run_id, "b"))
    counted = Counted()
    again = await rig.submit(append(run_id, "a", text(b"first")))
    assert (again.first_seq, again.repeated) == (3, True)
    assert (await refused(rig.submit(append(run_id, "a", text(b"other"))))).reason == "idempotency_conflict"
    # In the order of the contract: the known key comes before everything that the cache would have refused it for.
    late = Append.of(run_id, ORG, WORKER, 1, "a", [text(b"first")], expected_seq=2)
    assert (await rig.submit(late)).repeated
    stale = append(run_id, "a", text(b"first"), epoch=9)
    assert (await rig.submit(stale)).repeated
    assert (await refused(rig.submit(append(run_id, "new", epoch=9)))).reason == "stale_epoch"
    assert counted()["read"] == 5


async def test_a_whole_run_is_stored_without_reading(rig: Rig, runtime_database: Database) -> None:
    await rig.started_run()  # from here on, the partition is known
    counted = Counted()
    run_id = await rig.started_run()
    await rig.submit(append(run_id, "a"))
    await rig.submit(RequestCancel(run_id, ORG, USER))
    await rig.submit(append(run_id, "end", RunFinished(Outcome.CANCELED)))
    assert counted()["cached"] >= 4, "creating and giving away may have shared one"
    assert set(counted()) == {"cached"}
    assert (await refused(rig.submit(append(run_id, "late")))).reason == "invalid_transition"
    await check_log(runtime_database.runtime, [run_id])
    receipt = await PostgresReceipts(rig.postgres).receipt(run_id)
    assert receipt is not None
    assert json.loads(receipt.canonical_json)["run_id"] == run_id


async def test_a_run_is_created_and_given_away_by_one_batch(rig: Rig, runtime_database: Database) -> None:
    await rig.started_run()
    counted = Counted()
    run_id = run_id_in(PARTITION)
    created = rig.submit(CreateRun.of(run_id, ORG, USER, SPEC, run_id))
    given = rig.submit(AssignRun(run_id, WORKER))
    assert ((await created).first_seq, (await given).first_seq) == (1, 2)
    assert counted() == {"cached": 1}
    await check_log(runtime_database.runtime, [run_id])


async def test_a_run_that_was_created_before_is_found(rig: Rig) -> None:
    await rig.started_run()
    first, again = (CreateRun.of(run_id_in(PARTITION), ORG, USER, SPEC, "one key") for _ in range(2))
    await rig.submit(first)
    counted = Counted()
    applied = await rig.submit(again)
    assert (applied.run_id, applied.repeated) == (first.run_id, True)
    assert counted() == {"overtaken": 1, "read": 1}
    other = CreateRun.of(again.run_id, ORG, USER, replace(SPEC, labels={"a": "b"}), "one key")
    assert (await refused(rig.submit(other))).reason == "idempotency_conflict"


async def test_what_counts_in_a_share_is_counted_in_the_batch_that_creates_it(rig: Rig) -> None:
    await rig.started_run()
    spec = replace(SPEC, queue=QueuePolicy(concurrency=Concurrency("key", 1)))
    runs = [run_id_in(PARTITION) for _ in range(2)]
    answers: list[asyncio.Future[Applied]] = []
    for run_id in runs:
        answers += [rig.submit(CreateRun.of(run_id, ORG, USER, spec, run_id)), rig.submit(AssignRun(run_id, WORKER))]
    assert [(await answer).first_seq for answer in answers[:3]] == [1, 2, 1]
    assert (await refused(answers[3])).reason == "invalid_transition"


async def test_a_worker_that_is_lost_meanwhile_gets_nothing(rig: Rig, runtime_database: Database) -> None:
    """The batch waits for the worker's row, and reads it anew."""
    await rig.started_run()
    worker_id = new_id("wrk")
    workers = PostgresWorkers(rig.postgres, "one")
    record = WorkerRecord(worker_id, new_id("sva"), ORG, "", ("exec",), 1, WorkerStatus.RUNNING)
    await workers.add_worker(record, "attachment")
    run_id = run_id_in(PARTITION)
    admin = await asyncpg.connect(runtime_database.admin)
    try:
        counted = Counted()
        async with admin.transaction():
            await admin.execute("UPDATE runtime.workers SET status = 'lost' WHERE worker_id = $1", worker_id)
            created = rig.submit(CreateRun.of(run_id, ORG, USER, SPEC, run_id))
            given = rig.submit(AssignRun(run_id, worker_id))
            while not await admin.fetchval(_WAITS):
                await asyncio.sleep(0.01)
        assert (await created).first_seq == 1
        assert (await refused(given)).reason == "worker_lost"
        assert counted() == {"overtaken": 1, "read": 1}
    finally:
        await admin.close()


async def test_a_receipt_states_the_epoch_in_which_it_is_stored(rig: Rig, runtime_database: Database) -> None:
    run_id = await rig.started_run()
    await rig.submit(append(run_id, "a"))
    admin = await asyncpg.connect(runtime_database.admin)
    try:
        async with admin.transaction():
            before = await admin.fetchval("SELECT log_epoch FROM runtime.installation")
            await admin.execute("SELECT runtime.give_log_epoch($1, 'another', 'ordered', 'test', '')", before)
            ended = rig.submit(append(run_id, "end", RunFinished(Outcome.SUCCEEDED)))
            while not await admin.fetchval(_WAITS):
                await asyncio.sleep(0.01)
        await ended
    finally:
        await admin.close()
    receipt = await PostgresReceipts(rig.postgres).receipt(run_id)
    assert receipt is not None
    assert json.loads(receipt.canonical_json)["log_epoch"] == "another"


async def test_what_others_wrote_is_seen(runtime_database: Database) -> None:
    dsn = runtime_database.runtime
    async with replica(dsn, "one") as one, replica(dsn, "two") as two:
        run_id = await one.started_run()
        await one.submit(append(run_id, "a"))
        await two.submit(LoseLease(run_id, WORKER, 1))
        counted = Counted()
        assert (await refused(one.submit(append(run_id, "b")))).reason == "stale_epoch"
        assert counted() == {"overtaken": 1, "read": 1}
        await check_log(dsn, [run_id])


async def test_times_do_not_run_backwards_however_replicas_take_turns(runtime_database: Database) -> None:
    dsn = runtime_database.runtime
    async with replica(dsn, "one") as one, replica(dsn, "two") as two:
        run_id = await one.started_run()
        counted = Counted()
        for number in range(150):
            await (one, two)[number % 7 // 5].submit(append(run_id, f"k{number}"))
        log = (await check_log(dsn, [run_id]))[run_id]
        times = [wire.decode_event(data).recorded_ns for data in log]
        assert times == sorted(times)
        assert counted()["cached"] > 10
        assert counted()["overtaken"] > 3


async def test_the_clock_is_read_again_in_time(runtime_database: Database) -> None:
    async with replica(runtime_database.runtime, sequencer=SequencerLimits(cache_max_age_ms=0)) as rig:
        run_id = await rig.started_run()
        counted = Counted()
        for number in range(3):
            await rig.submit(append(run_id, f"k{number}"))
        assert counted() == {"read": 3}


async def test_a_batch_of_unknown_fate_ends_all_that_was_known(runtime_database: Database) -> None:
    admin = await asyncpg.connect(runtime_database.admin)
    try:
        # One writer: all connections are given up after that, and every one that is made anew forgets.
        async with replica(runtime_database.runtime, sequencer=SequencerLimits(writers=1)) as rig:
            run_id = await rig.started_run()
            await rig.submit(append(run_id, "a"))
            async with admin.transaction():
                await admin.execute("SELECT 1 FROM runtime.log_heads WHERE partition = $1 FOR UPDATE", PARTITION)
                answer = rig.submit(append(run_id, "b"))
                await _killed_while_waiting(admin)
                assert (await refused(answer)).reason == "unavailable"
            counted = Counted()
            assert (await rig.submit(append(run_id, "b"))).first_seq == 4
            assert (await rig.submit(append(run_id, "c"))).first_seq == 5
            assert counted() == {"read": 1, "cached": 1}
            await check_log(runtime_database.runtime, [run_id])
    finally:
        await admin.close()


async def _killed_while_waiting(admin: asyncpg.Connection[asyncpg.Record]) -> None:
    while not await admin.fetchval(_WAITS.replace("count(*)", "count(pg_terminate_backend(pid))")):
        await asyncio.sleep(0.01)


async def test_a_second_transaction_goes_on_beside_one_that_waits(runtime_database: Database) -> None:
    admin = await asyncpg.connect(runtime_database.admin)
    try:
        async with replica(runtime_database.runtime, sequencer=SequencerLimits(concurrent_batch_min_bytes=1000)) as rig:
            held, free = await rig.started_run(), await rig.started_run(PARTITION + 1)
            async with admin.transaction():
                await admin.execute("SELECT 1 FROM runtime.log_heads WHERE partition = $1 FOR UPDATE", PARTITION)
                waiting = rig.submit(append(held, "a"))
                while not await admin.fetchval(_WAITS):
                    await asyncio.sleep(0.01)
                little = rig.submit(append(free, "a", text(b"x" * 100)))
                await asyncio.sleep(0.1)
                assert not little.done(), "so little waits for the next commit"
                much = rig.submit(append(free, "b", text(b"x" * 1000)))
                assert [(await little).first_seq, (await much).first_seq] == [3, 4]
                assert not waiting.done()
            assert (await waiting).first_seq == 3
    finally:
        await admin.close()


async def test_the_same_number_on_another_history_is_not_what_was_known(runtime_database: Database) -> None:
    """A standby that lacked one event was promoted, and another replica wrote one: the head has the same number."""
    dsn = runtime_database.runtime
    async with replica(dsn, "one") as one, replica(dsn, "two") as two:
        run_id, other = await one.started_run(), await two.started_run()
        await two.submit(append(other, "a"))
        await one.submit(append(run_id, "a"))
        standby = await LaggingStandby.of(runtime_database)
        await one.submit(append(run_id, "b", text(b"lost")))
        await standby.promote()
        await two.submit(append(other, "b"))
        counted = Counted()
        assert (await one.submit(append(run_id, "c"))).first_seq == 4
        assert counted() == {"overtaken": 1, "read": 1}
        await check_log(dsn, [run_id, other])


async def test_a_run_with_another_past_is_not_the_one_that_was_known(runtime_database: Database) -> None:
    """Head and seq are what they were; the event there is another one."""
    dsn = runtime_database.runtime
    async with replica(dsn, "one") as one, replica(dsn, "two") as two:
        run_id = await one.started_run()
        standby = await LaggingStandby.of(runtime_database)
        await one.submit(append(run_id, "a", text(b"lost")))
        await standby.promote()
        await two.submit(append(run_id, "b", text(b"kept")))
        counted = Counted()
        assert (await one.submit(append(run_id, "c"))).first_seq == 4
        assert counted() == {"overtaken": 1, "read": 1}
        await check_log(dsn, [run_id])
