"""The sequencer on a real Postgres: every outcome, several replicas on one partition, and a database that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_runlog.authority.commands import Command, CreateRun, RequestCancel
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import Outcome, RunFinished
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from oa_testing.suite.plugin import FaultProxies
from services.runtime.log import metrics
from services.runtime.log.domain.batch import Applied
from services.runtime.log.limits import SequencerLimits
from services.runtime.log.store.reads import PostgresReads
from services.runtime.log.tests.one_sequencer import (
    ORG,
    PARTITION,
    SIGNER,
    SPEC,
    USER,
    Rig,
    append,
    check_log,
    refused,
    replica,
    run_id_in,
    text,
)
from services.runtime.receipts.store.receipts import PostgresReceipts


@pytest_asyncio.fixture
async def rig(runtime_database: Database) -> AsyncIterator[Rig]:
    async with replica(runtime_database.runtime) as rig:
        yield rig


# ------------------------------------------------------------------------------------------------- outcomes


async def test_what_was_stored_is_published_at_its_position(rig: Rig, runtime_database: Database) -> None:
    run_id = await rig.started_run()
    counted = metrics.EVENTS_STORED.labels("text.delta")
    before = value_of(counted)
    applied = await rig.submit(append(run_id, "a", text(b"one"), text(b"two")))
    assert (applied.first_seq, applied.last_seq, applied.repeated) == (3, 4, False)
    assert value_of(counted) == before + 2
    assert [(record.position, record.seq) for record in rig.published] == [(n, n) for n in range(1, 5)]
    logs = await check_log(runtime_database.runtime, [run_id])
    assert logs[run_id] == [record.data for record in rig.published]


async def test_an_append_sent_again_gets_its_first_seqs_and_other_content_a_conflict(rig: Rig) -> None:
    run_id = await rig.started_run()
    first = await rig.submit(append(run_id, "a", text(), text()))
    await rig.submit(append(run_id, "b"))
    again = await rig.submit(append(run_id, "a", text(), text()))
    assert (again.first_seq, again.last_seq, again.repeated) == (first.first_seq, first.last_seq, True)
    refusal = await refused(rig.submit(append(run_id, "a", text(b"other"))))
    assert refusal.reason == "idempotency_conflict"


async def test_repetitions_within_one_batch_are_seen(rig: Rig) -> None:
    run_id = await rig.started_run()
    answers = [rig.submit(append(run_id, "a")) for _ in range(3)]
    applied = await asyncio.gather(*answers)
    assert [(one.first_seq, one.repeated) for one in applied] == [(3, False), (3, True), (3, True)]
    assert rig.batches[-1] == 1


async def test_creating_twice_gives_one_run_within_a_batch_and_across(rig: Rig) -> None:
    one, other, third = (run_id_in(PARTITION) for _ in range(3))
    first, second = await asyncio.gather(
        *(rig.submit(CreateRun.of(run_id, ORG, USER, SPEC, "key")) for run_id in (one, other))
    )
    later = await rig.submit(CreateRun.of(third, ORG, USER, SPEC, "key"))
    assert [(a.run_id, a.repeated) for a in (first, second, later)] == [(one, False), (one, True), (one, True)]
    conflict = CreateRun.of(third, ORG, USER, replace(SPEC, title="other"), "key")
    assert (await refused(rig.submit(conflict))).reason == "idempotency_conflict"
    theirs = await rig.submit(CreateRun.of(third, ORG, new_id("usr"), SPEC, "key"))
    assert (theirs.run_id, theirs.repeated) == (third, False)


async def test_a_refused_command_does_not_spoil_its_neighbours(rig: Rig, runtime_database: Database) -> None:
    run_id = await rig.started_run()
    commands: list[Command] = [
        append(run_id, "a"),
        append(run_id, "b", epoch=7),
        append(run_id_in(PARTITION), "c"),
        append(run_id, "d", text(), RunFinished(Outcome.SUCCEEDED), text()),
        append(run_id, "e"),
        RequestCancel(run_id, new_id("org"), USER),
        append(run_id, "f", RunFinished(Outcome.SUCCEEDED)),
    ]
    answers = await asyncio.gather(*map(rig.submit, commands), return_exceptions=True)
    outcomes = [answer.last_seq if isinstance(answer, Applied) else str(answer).split(":")[0] for answer in answers]
    assert outcomes == [
        3,
        "stale_epoch (lease_epoch)",
        "not_found (run_id)",
        "invalid_transition (events[2])",
        4,
        "not_found (run_id)",
        5,
    ]
    assert rig.batches[-1] == 3, "all of them in one transaction"
    await check_log(runtime_database.runtime, [run_id])


async def test_the_receipt_is_stored_with_the_finish(rig: Rig) -> None:
    run_id = await rig.started_run()
    reads, receipts = PostgresReads(rig.postgres), PostgresReceipts(rig.postgres)
    assert await receipts.receipt(run_id) is None
    await rig.submit(append(run_id, "a", RunFinished(Outcome.FAILED, "timeout")))
    found = await reads.run(run_id)
    assert found is not None
    async with rig.postgres.acquire() as connection:
        epoch = await connection.fetchval("SELECT log_epoch FROM runtime.installation")
    assert await receipts.receipt(run_id) == SIGNER.sign(found.state, epoch)


async def test_the_pace_of_a_run_is_held_across_replicas(runtime_database: Database) -> None:
    slow = RunLimits(events_per_second=1, burst_events=4)
    dsn = runtime_database.runtime
    async with replica(dsn, "one", slow) as one, replica(dsn, "two", slow) as two:
        run_id = await one.started_run()
        await one.submit(append(run_id, "a", text(), text()))
        await two.submit(append(run_id, "b", text(), text()))
        refusal = await refused(one.submit(append(run_id, "c")))
        assert refusal.reason == "publish_rate_limited"
        assert 0 < refusal.retry_after_ms <= 1000


# ------------------------------------------------------------------------------------------------- queue


async def test_a_full_queue_refuses_at_once_and_a_batch_has_its_bound(runtime_database: Database) -> None:
    limits = SequencerLimits(queue_commands=8, batch_commands=3)
    async with replica(runtime_database.runtime, sequencer=limits) as rig:
        run_id = await rig.started_run()
        answers = [rig.submit(append(run_id, f"k{n}")) for n in range(8)]
        with pytest.raises(Refusal) as caught:
            await rig.submit(append(run_id, "one too many"))
        assert (caught.value.reason, caught.value.retry_after_ms) == ("overloaded", limits.overloaded_retry_ms)
        await asyncio.gather(*answers)
        assert rig.batches[-3:] == [3, 3, 2]


async def test_a_batch_is_bounded_in_bytes_too(runtime_database: Database) -> None:
    async with replica(runtime_database.runtime, sequencer=SequencerLimits(batch_bytes=2048)) as rig:
        run_id = await rig.started_run()
        await asyncio.gather(*(rig.submit(append(run_id, f"k{n}", text(b"x" * 900))) for n in range(4)))
        assert rig.batches[-2:] == [2, 2]
        await rig.submit(append(run_id, "large", text(b"x" * 5000)))


async def test_closing_answers_what_is_queued_and_takes_nothing_more(runtime_database: Database) -> None:
    async with replica(runtime_database.runtime) as rig:
        run_id = await rig.started_run()
        answers = [rig.submit(append(run_id, f"k{n}")) for n in range(20)]
        rig.sequencer.close()
        with pytest.raises(Refusal) as caught:
            await rig.submit(append(run_id, "late"))
        assert caught.value.reason == "draining"
        assert [one.last_seq for one in await asyncio.gather(*answers)] == list(range(3, 23))


# ------------------------------------------------------------------------------------------------- replicas


async def test_two_replicas_write_one_partition_without_a_hole(runtime_database: Database) -> None:
    dsn = runtime_database.runtime
    async with replica(dsn, "one") as one, replica(dsn, "two") as two:
        shared = await one.started_run()
        own = [await one.started_run(), await two.started_run()]

        async def write(rig: Rig, run_id: str, count: int) -> None:
            for number in range(count):
                key = f"{rig is one}-{number}"
                await asyncio.gather(rig.submit(append(run_id, key)), rig.submit(append(shared, key)))

        await asyncio.gather(write(one, own[0], 40), write(two, own[1], 40))
        logs = await check_log(dsn, [shared, *own])
        assert [len(logs[run]) for run in (shared, *own)] == [82, 42, 42]
        positions = sorted(record.position for rig in (one, two) for record in rig.published)
        assert positions == list(range(1, 82 + 42 + 42 + 1))


async def test_one_append_raced_by_two_replicas_is_stored_once(runtime_database: Database) -> None:
    dsn = runtime_database.runtime
    async with replica(dsn, "one") as one, replica(dsn, "two") as two:
        run_id = await one.started_run()
        for number in range(20):
            answers = await asyncio.gather(*(rig.submit(append(run_id, f"k{number}")) for rig in (one, two)))
            assert {answer.first_seq for answer in answers} == {3 + number}
            assert sorted(answer.repeated for answer in answers) == [False, True]


async def test_creating_is_raced_by_two_replicas_and_gives_one_run(runtime_database: Database) -> None:
    dsn = runtime_database.runtime
    async with replica(dsn, "one") as one, replica(dsn, "two") as two:
        for number in range(10):
            answers = await asyncio.gather(
                *(rig.submit(CreateRun.of(run_id_in(PARTITION), ORG, USER, SPEC, f"k{number}")) for rig in (one, two))
            )
            assert len({answer.run_id for answer in answers}) == 1


# ------------------------------------------------------------------------------------------------- failures


async def test_a_connection_killed_in_a_transaction_costs_nothing_but_a_retry(runtime_database: Database) -> None:
    admin = await asyncpg.connect(runtime_database.admin)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(admin.close)
        rig = await stack.enter_async_context(replica(runtime_database.runtime))
        run_id = await rig.started_run()
        # Somebody else holds the partition, so that the transaction waits in its first statement.
        async with admin.transaction():
            await admin.execute("SELECT 1 FROM runtime.log_heads WHERE partition = $1 FOR UPDATE", PARTITION)
            answers = [rig.submit(append(run_id, f"k{n}")) for n in range(3)]
            while not await admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'sequencer-one'"
                " AND wait_event_type = 'Lock'"
            ):
                await asyncio.sleep(0.01)
            for answer in answers:
                refusal = await refused(answer)
                assert refusal.reason == "unavailable"
                assert refusal.retry_after_ms > 0
        again = [await rig.submit(append(run_id, f"k{n}")) for n in range(3)]
        assert [(one.first_seq, one.repeated) for one in again] == [(3, False), (4, False), (5, False)]
        await check_log(runtime_database.runtime, [run_id])


async def test_an_append_whose_answer_was_lost_is_found_by_its_key(
    runtime_database: Database, fault_proxies: FaultProxies
) -> None:
    """The network is cut at moments all through the transaction; what was stored unseen is stored once."""
    proxy = await fault_proxies("127.0.0.1", runtime_database.port)
    dsn = runtime_database.runtime.replace(f":{runtime_database.port}/", f":{proxy.port}/")
    lost = 0
    async with replica(dsn) as rig:
        run_id = await rig.started_run()
        for number in range(12):
            answer = rig.submit(append(run_id, f"k{number}"))
            await asyncio.sleep(number * 0.0007)
            await proxy.cut()
            await asyncio.wait([answer])
            while answer.exception() is not None:
                assert (await refused(answer)).reason == "unavailable"
                lost += 1
                answer = rig.submit(append(run_id, f"k{number}"))
                await asyncio.wait([answer])
            applied = answer.result()
            assert applied.first_seq == 3 + number
        assert lost > 0, "the cuts must have hit something"
        logs = await check_log(runtime_database.runtime, [run_id])
        assert len(logs[run_id]) == 14


async def test_a_database_that_is_away_is_told_at_once_and_found_again(
    runtime_database: Database, fault_proxies: FaultProxies
) -> None:
    proxy = await fault_proxies("127.0.0.1", runtime_database.port)
    dsn = runtime_database.runtime.replace(f":{runtime_database.port}/", f":{proxy.port}/")
    async with replica(dsn) as rig:
        run_id = await rig.started_run()
        proxy.refuse()
        await proxy.cut()
        for _ in range(2):
            assert (await refused(rig.submit(append(run_id, "a")))).reason == "unavailable"
        proxy.refuse(False)
        assert (await rig.submit(append(run_id, "a"))).first_seq == 3
