"""The log's past: what is missing is noticed, and a new epoch tells everybody, with a record of why."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.proof.verify import verify_receipt
from oa_testing.fork_server import PYTHON
from oa_testing.postgres import ON_FAST, Database
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import log_service_pb2
from openagents.runtime.v1 import receipt_service_pb2 as receipts_pb2
from openagents.runtime.v1.worker_service_pb2 import HeldLease
from openagents.sync.v1 import topic_service_pb2
from services.runtime.config import MergeSettings, TailSettings
from services.runtime.tests.epochs import epoch_of
from services.runtime.tests.lost_events import LaggingStandby
from services.runtime.tests.rig import (
    AS_GATEWAY,
    AS_PROJECTOR,
    FakeWorker,
    Replica,
    Somebody,
    finish,
    keep_beating,
    refusal_of_call,
    refusing,
    replica,
    runtime_settings,
    started,
    text,
)

OFTEN = TailSettings(poll_interval_ms=50)


# ------------------------------------------------------------------------------------------------- replicas


@asynccontextmanager
async def runtime_on(database: Database, who: Somebody, **changes: Any) -> AsyncIterator[Replica]:
    settings = runtime_settings(database, tail=OFTEN, merge=MergeSettings(pause_ms=10, poll_ms=50), **changes)
    async with replica(settings, who.key) as runtime:
        yield runtime


@pytest_asyncio.fixture
async def runtime(runtime_database: Database, who: Somebody) -> AsyncIterator[Replica]:
    async with runtime_on(runtime_database, who) as runtime:
        yield runtime


async def until_epoch_is_not(runtime: Replica, before: str) -> str:
    async with asyncio.timeout(30):
        while (epoch := await epoch_of(runtime)) == before:
            await asyncio.sleep(0.01)
    return epoch


async def epochs(database: Database) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(database.owner)
    try:
        rows = await connection.fetch("SELECT cause, given_by FROM runtime.log_epochs ORDER BY number")
    finally:
        await connection.close()
    return [(row["cause"], row["given_by"]) for row in rows]


async def new_epoch(database: Database, *arguments: str) -> tuple[int, bytes, bytes]:
    """The command, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "-P", "-m", "services.runtime.new_epoch", *arguments),
        env={
            **os.environ,
            **ON_FAST,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OA_DATABASE_URL": database.runtime,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out, err


async def test_the_command_gives_a_new_epoch_to_all_replicas_with_a_record_of_it(
    runtime_database: Database, runtime: Replica, who: Somebody
) -> None:
    async with runtime_on(runtime_database, who) as other:
        before = await epoch_of(runtime)
        status, out, _ = await new_epoch(runtime_database, "--by", "ann", "--reason", "restored from a backup")
        given = json.loads(out)
        assert (status, given["before"]) == (0, before)
        for one in (runtime, other):
            assert await until_epoch_is_not(one, before) == given["log_epoch"]
        assert await epochs(runtime_database) == [("installed", "migration"), ("ordered", "ann")]


async def test_the_command_refuses_what_would_be_no_record(runtime_database: Database) -> None:
    for arguments in (("--by", "ann"), ("--by", " ", "--reason", "x"), ("--by", "a\x1b", "--reason", "x")):
        status, _, err = await new_epoch(runtime_database, *arguments)
        assert (status, b"usage" in err) == (2, True)
    assert len(await epochs(runtime_database)) == 1


async def test_the_command_says_that_the_database_was_not_restored(empty_database: Database) -> None:
    status, out, err = await new_epoch(empty_database, "--by", "ann", "--reason", "restored from a backup")
    assert (status, out) == (2, b"")
    assert err.startswith(b"migration_refused: the database lacks 0001_log.sql")


async def test_those_who_follow_the_log_begin_anew(runtime_database: Database, runtime: Replica, who: Somebody) -> None:
    worker = FakeWorker(runtime, who)
    await worker.attach()
    run_id = await started(runtime, who, worker)
    topic, before = f"run:{run_id}:events", await epoch_of(runtime)
    watch: Any = runtime.topics.WatchTopics(metadata=AS_GATEWAY)
    await watch.write(topic_service_pb2.WatchTopicsRequest(add_topics=[topic]))
    assert (await watch.read()).watched[0].epoch == before
    places = [cursor_pb2.LogPosition(partition=partition) for partition in range(16)]
    tail = runtime.log.TailLog(log_service_pb2.TailLogRequest(epoch=before, after=places), metadata=AS_PROJECTOR)

    await new_epoch(runtime_database, "--by", "ann", "--reason", "a test")
    epoch = await until_epoch_is_not(runtime, before)

    async with asyncio.timeout(30):
        while not (answer := await watch.read()).watched:
            assert {batch.epoch for batch in answer.batches} <= {before}
        assert [(one.topic, one.epoch) for one in answer.watched] == [(topic, epoch)]
        refusal = await refusal_of_call(_to_its_end(tail))
    assert (refusal.reason, refusal.metadata["epoch"]) == ("epoch_mismatch", epoch)
    replay = topic_service_pb2.ReplayTopicRequest(topic=topic, epoch=before, after_seq=1)
    refusal = await refusal_of_call(runtime.topics.ReplayTopic(replay, metadata=AS_GATEWAY))
    assert (refusal.reason, refusal.metadata["epoch"]) == ("epoch_mismatch", epoch)
    watch.cancel()


async def _to_its_end(call: Any) -> None:
    async for _ in call:
        pass


async def test_receipts_of_both_epochs_hold_and_are_in_one_log(
    runtime_database: Database, runtime: Replica, who: Somebody
) -> None:
    worker = FakeWorker(runtime, who)
    await worker.attach()
    first, before = await started(runtime, who, worker, "one"), await epoch_of(runtime)
    beating = asyncio.create_task(keep_beating(worker))
    await worker.append(first, 1, "end", finish())
    await new_epoch(runtime_database, "--by", "ann", "--reason", "a test")
    epoch = await until_epoch_is_not(runtime, before)
    beating.cancel()
    worker = FakeWorker(runtime, who)
    await worker.attach()
    second = await started(runtime, who, worker, "two")
    await worker.append(second, 1, "end", finish())

    keys = await runtime.receipts.ListReceiptKeys(receipts_pb2.ListReceiptKeysRequest(), metadata=who.as_person())
    known = {key.key_id: key.public_key for key in keys.keys}
    stated = []
    for run_id in (first, second):
        request = receipts_pb2.GetReceiptRequest(run_id=run_id)
        answer = await runtime.receipts.GetReceipt(request, metadata=who.as_person())
        stated.append(verify_receipt(wire.receipt_from_wire(answer.receipt), known, run_id=run_id).log_epoch)
    assert stated == [before, epoch]


async def test_what_was_followed_and_is_gone_gives_the_log_a_new_epoch(
    runtime_database: Database, runtime: Replica, who: Somebody
) -> None:
    """And what goes on is whole: the lost seqs are given again, under the new epoch."""
    worker = FakeWorker(runtime, who)
    await worker.attach()
    run_id = await started(runtime, who, worker)
    await worker.append(run_id, 1, "a", text(b"kept"))
    before = await epoch_of(runtime)
    standby = await LaggingStandby.of(runtime_database)
    await worker.append(run_id, 1, "b", text(b"lost"))
    await standby.promote()

    epoch = await until_epoch_is_not(runtime, before)
    assert [cause for cause, _ in await epochs(runtime_database)] == ["installed", "events_missing"]
    worker = await attached_again(runtime, who, worker, HeldLease(run_id=run_id, lease_epoch=1))
    assert (await worker.append(run_id, 1, "c", text(b"new"))).first_seq == 4
    replay = topic_service_pb2.ReplayTopicRequest(topic=f"run:{run_id}:events", epoch=epoch, after_seq=2)
    frames = (await runtime.topics.ReplayTopic(replay, metadata=AS_GATEWAY)).page.frames
    assert [(b"lost" in frame, b"new" in frame) for frame in frames] == [(False, False), (False, True)]


async def _end_of(worker: FakeWorker) -> Refusal:
    while True:
        try:
            await worker.heartbeat()
        except Refusal as refusal:
            return refusal
        await asyncio.sleep(0.02)


async def attached_again(runtime: Replica, who: Somebody, worker: FakeWorker, *held: HeldLease) -> FakeWorker:
    """The worker on another stream, once its stream has ended for the new epoch."""
    assert (await _end_of(worker)).reason == "unavailable"
    again = FakeWorker(runtime, who, worker.worker_id, slots=1)
    await again.attach(*held)
    return again


async def test_a_run_that_was_lost_takes_no_slot_of_its_worker(
    runtime_database: Database, runtime: Replica, who: Somebody
) -> None:
    worker = FakeWorker(runtime, who, slots=1)
    await worker.attach()
    before = await epoch_of(runtime)
    standby = await LaggingStandby.of(runtime_database)
    lost = await started(runtime, who, worker)
    await standby.promote()
    await until_epoch_is_not(runtime, before)
    worker = await attached_again(runtime, who, worker, HeldLease(run_id=lost, lease_epoch=1))
    assert (await worker.next("lease_lost")).lease_lost.run_id == lost
    await started(runtime, who, worker, "another")


async def test_a_new_connection_is_asked_before_it_is_used(runtime_database: Database, who: Somebody) -> None:
    """Long before the next look: what is stored after the failover is stored under the new epoch."""
    settings = runtime_settings(runtime_database, tail=TailSettings(poll_interval_ms=600_000))
    quiet = replace(settings.database, watch_ms=600_000)
    async with replica(replace(settings, database=quiet), who.key) as runtime:
        before = await epoch_of(runtime)
        standby = await LaggingStandby.of(runtime_database)
        await runtime.create(who, "lost")
        admin = await asyncpg.connect(runtime_database.admin)
        try:
            await admin.execute(f"ALTER DATABASE {runtime_database.name} CONNECTION LIMIT 0")
            await admin.execute(_END_SESSIONS)
            await standby.promote()
            await admin.execute(f"ALTER DATABASE {runtime_database.name} CONNECTION LIMIT -1")
        finally:
            await admin.close()
        async with asyncio.timeout(60):
            while not (run_id := await _created(runtime, who, "new")):
                await asyncio.sleep(0.01)
        assert await epoch_of(runtime) != before
        assert (await runtime.run(who, run_id)).run_id == run_id


_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def _created(runtime: Replica, who: Somebody, key: str) -> str:
    """The id of a new run; empty while the database can't be reached."""
    try:
        return str((await refusing(runtime.create(who, key))).run_id)
    except Refusal:
        return ""


async def test_the_same_number_of_events_with_others_among_them_is_noticed(
    runtime_database: Database, runtime: Replica, who: Somebody
) -> None:
    """Another replica wrote on the promoted server before this one looked: heads and seqs are what they were."""
    worker = FakeWorker(runtime, who)
    await worker.attach()
    run_id, before = await started(runtime, who, worker), await epoch_of(runtime)
    standby = await LaggingStandby.of(runtime_database)
    await worker.append(run_id, 1, "b", text(b"lost"))
    admin = await asyncpg.connect(runtime_database.admin)
    async with admin.transaction():
        await admin.execute("LOCK TABLE runtime.installation IN ACCESS EXCLUSIVE MODE")  # nobody looks before the end
        await standby.promote_in(admin)
        await admin.execute(_ANOTHER_EVENT, run_id)
    await admin.close()
    await until_epoch_is_not(runtime, before)
    assert [cause for cause, _ in await epochs(runtime_database)] == ["installed", "events_missing"]


_ANOTHER_EVENT = """
WITH another AS (
    INSERT INTO runtime.events (partition, position, run_id, seq, type, body, chain, recorded_at)
    SELECT h.partition, h.position + 1, r.run_id, r.latest_seq + 1, 'text.delta', 'x', sha256('another'), now()
    FROM runtime.runs r JOIN runtime.log_heads h USING (partition) WHERE run_id = $1
    RETURNING *
), moved AS (
    UPDATE runtime.runs r SET latest_seq = a.seq, chain_head = a.chain FROM another a WHERE r.run_id = a.run_id
)
UPDATE runtime.log_heads h SET position = a.position, chain = a.chain FROM another a WHERE h.partition = a.partition
"""


async def test_a_server_of_another_history_that_has_everything_keeps_the_epoch(
    runtime_database: Database, runtime: Replica, who: Somebody
) -> None:
    """A standby that had everything was promoted: the replica can tell."""
    before = await epoch_of(runtime)
    await runtime.create(who)
    admin = await asyncpg.connect(runtime_database.admin)
    try:
        await admin.execute("UPDATE runtime.installation SET timeline = timeline + 1")
        async with asyncio.timeout(30):
            while await admin.fetchval("SELECT timeline FROM runtime.installation") != 1:
                await asyncio.sleep(0.01)
    finally:
        await admin.close()
    assert await epoch_of(runtime) == before
    assert await epochs(runtime_database) == [("installed", "migration")]


ELSEWHERE = {
    "another server": "UPDATE runtime.installation SET system_identifier = system_identifier + 1",
    "restored from a dump": "UPDATE runtime.installation SET table_oid = table_oid + 1",
}
"""Where the log was last seen."""


@pytest.mark.parametrize("what", ELSEWHERE)
async def test_where_nobody_can_compare_the_log_gets_a_new_epoch(
    runtime_database: Database, who: Somebody, what: str
) -> None:
    """No replica was there during the change."""
    async with runtime_on(runtime_database, who) as runtime:
        before = await epoch_of(runtime)
    admin = await asyncpg.connect(runtime_database.admin)
    await admin.execute(ELSEWHERE[what])
    await admin.close()
    async with runtime_on(runtime_database, who) as runtime, runtime_on(runtime_database, who) as other:
        assert await epoch_of(runtime) != before
        assert await epoch_of(other) == await epoch_of(runtime), "the second one finds it"
    assert [cause for cause, _ in await epochs(runtime_database)] == ["installed", "history_unknown"]
