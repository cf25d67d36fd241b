"""Beside a replica of a later release, whose events this one does not know, everything goes on and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import asyncpg

from oa_runlog.proof.chain import chain_next, chain_over
from oa_runlog.wire import encode_event
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import event_pb2, log_service_pb2, receipt_service_pb2, run_pb2
from services.runtime.tests.rig import (
    AS_PROJECTOR,
    Replica,
    Somebody,
    attached,
    finish,
    replica,
    runtime_settings,
    text,
)

PARTITIONS = 16
_BODY = b"\xba\x3e\x01x"
"""A body of a kind that no release has: field 999."""


async def written_by_a_later_release(database: Database, run: Any) -> None:
    """Store one more event of the run, and tell of it, as a replica does that knows such events."""
    data = encode_event(run.run_id, run.latest_seq + 1, time.time_ns(), 1, _BODY)
    chain = chain_next(run.chain_head, data)
    connection = await asyncpg.connect(database.owner)
    try:
        async with connection.transaction():
            head = await connection.fetchrow(
                "UPDATE runtime.log_heads SET position = position + 1, chain = $1"
                " WHERE partition = (SELECT partition FROM runtime.runs WHERE run_id = $2)"
                " RETURNING partition, position",
                chain,
                run.run_id,
            )
            assert head is not None
            partition, position = head
            await connection.execute(
                "UPDATE runtime.runs SET latest_seq = latest_seq + 1, chain_head = $1 WHERE run_id = $2",
                chain,
                run.run_id,
            )
            await connection.execute(
                "INSERT INTO runtime.events (partition, position, run_id, seq, type, body, chain, recorded_at)"
                " VALUES ($1, $2, $3, $4, 'later.kind', $5, $6, now())",
                *(partition, position, run.run_id, run.latest_seq + 1, data, chain),
            )
            await connection.execute("SELECT pg_notify('runtime_log', $1)", f"later {partition}:{position}")
    finally:
        await connection.close()


async def followed(runtime: Replica, run_id: str) -> list[bytes]:
    """The run's events, as whoever tails the log gets them, up to its end."""
    after = [cursor_pb2.LogPosition(partition=partition) for partition in range(PARTITIONS)]
    found: list[bytes] = []
    async for batch in runtime.log.TailLog(log_service_pb2.TailLogRequest(after=after), metadata=AS_PROJECTOR):
        for data in batch.events:
            event = event_pb2.RunEvent.FromString(data)
            found += [data] if event.run_id == run_id else []
            if event.body.HasField("run_finished"):
                return found
    raise AssertionError("the stream ended before the run")


async def test_an_event_of_a_kind_that_is_not_known_here_is_passed_on_and_proved(
    runtime_database: Database, who: Somebody
) -> None:
    async with replica(runtime_settings(runtime_database), who.key) as runtime, asyncio.timeout(PATIENCE_S):
        worker = await attached(runtime, who)
        run_id = (await runtime.create(who)).run_id
        assert (await worker.next("assignment")).assignment.run.run_id == run_id
        await worker.append(run_id, 1, "before", text(b"a"))
        live = asyncio.create_task(followed(runtime, run_id))
        await written_by_a_later_release(runtime_database, await runtime.run(who, run_id))
        await worker.append(run_id, 1, "after", text(b"b"), finish())

        events = await live
        assert [event_pb2.RunEvent.FromString(data).seq for data in events] == [1, 2, 3, 4, 5, 6]
        assert await followed(runtime, run_id) == events
        run = await runtime.run(who, run_id)
        assert (run.status, run.latest_seq) == (run_pb2.RUN_STATUS_SUCCEEDED, 6)
        assert run.chain_head == chain_over(run_id, events)
        request = receipt_service_pb2.GetReceiptRequest(run_id=run_id)
        receipt = (await runtime.receipts.GetReceipt(request, metadata=who.as_person())).receipt
        assert json.loads(receipt.canonical_json)["chain_head"] == run.chain_head.hex()
