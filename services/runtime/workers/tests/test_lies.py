"""Beside workers that lie, of the same org and of another one, honest runs are what they would be without them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import asyncpg
import pytest

from oa_base.catalogue import is_reason
from oa_platform.system.ids import new_id
from oa_runlog.state import RunStatus
from oa_runlog.state.reducer import replay
from oa_testing.postgres import Database
from openagents.runtime.v1 import event_pb2
from services.runtime.tests.rig import FakeWorker, Replica, Somebody, finish, replica, runtime_settings, somebody, text
from services.runtime.workers.tests.liar import LIE, Liar

LIES = 120


async def honest(runtime: Replica, who: Somebody, worker: FakeWorker, run_id: str) -> None:
    """A run as it should be: work, a question that nobody answers, and more work, each append answered in turn."""
    opened = event_pb2.RequestOpened(request_id="r1", kind=event_pb2.REQUEST_KIND_TEXT, title="Why?")
    for number in range(30):
        body = event_pb2.EventBody(request_opened=opened) if number == 3 else text(b"honest")
        answer = await worker.append(run_id, 1, f"honest-{number}", body)
        assert answer.first_seq == number + 3, answer
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(4))
async def test_nobody_else_notices(runtime_database: Database, seed: int) -> None:
    chance, who = random.Random(seed), somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        worker = FakeWorker(runtime, who, slots=1)
        await worker.attach()
        run = await runtime.create(who, "honest")
        assert (await worker.next("assignment")).assignment.run.run_id == run.run_id
        for number in range(4):  # what the liar of the org gets, and may ruin
            await runtime.create(who, f"bait-{number}")
        victims = [run.run_id, worker.worker_id]
        colleague = replace(who, account_id=new_id("sva"))
        stranger = replace(somebody(), key=who.key)
        liars = [Liar(runtime, each, chance, victims) for each in (colleague, stranger)]
        await asyncio.gather(honest(runtime, who, worker, run.run_id), *(liar.lie(LIES) for liar in liars))
        assert (await worker.append(run.run_id, 1, "end", finish())).last_seq == 33
        refusals = liars[0].refusals + liars[1].refusals
        assert refusals, "they were told nothing"
        assert all(is_reason(reason) for reason in refusals)
        assert refusals["internal"] == 0, refusals
    await check_logs(runtime_database, run.run_id)


async def check_logs(database: Database, honest_run: str) -> None:
    """Every log is one that an authority may write, and nothing of a liar stands in the honest one."""
    admin = await asyncpg.connect(database.admin)
    rows = await admin.fetch("SELECT run_id, body FROM runtime.events ORDER BY run_id, seq")
    await admin.close()
    logs: dict[str, list[bytes]] = {}
    for row in rows:
        logs.setdefault(row["run_id"], []).append(row["body"])
    for log in logs.values():
        assert replay(log) is not None
    state = replay(logs[honest_run])
    assert state is not None
    assert (state.status, state.attempt, state.latest_seq) == (RunStatus.SUCCEEDED, 1, 33)
    assert not any(LIE in body for body in logs[honest_run])
