"""One run, three replicas, several clients, and everything goes wrong: what they were told is what one copy would tell.

`python -m tests.linearizability --histories 10000` is the long form, with `--grpc` for whole replicas.
"""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S

from .campaign import check_many
from .defects import DEFECTS, STREAM_DEFECTS, Defect, StreamDefect, without_lock
from .grpc_replicas import GrpcReplicas
from .replicas import Replicas
from .workload import Plan

pytestmark = pytest.mark.long

SEED = 20261122


async def test_histories_of_three_replicas_are_linearizable(runtime_database: Database) -> None:
    async with Replicas(runtime_database, SEED) as replicas:
        outcome = await check_many(replicas.new_run, [Plan(SEED + number) for number in range(100)])
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.operations == 100 * 30
    assert replicas.kills > 10, "no connection was killed"
    assert outcome.unanswered > 100, f"too little trouble to prove anything: {outcome}"
    for kind in (
        "Append: stored",
        "Append: again",
        "Append: idempotency_conflict",
        "Append: seq_conflict",
        "Append: stale_epoch",
        "Assign: stored",
        "Assign: stale_epoch",
        "LoseLease: stored",
        "LoseLease: again",
        "Cancel: stored",
        "Deadline: again",
        "Read: read",
    ):
        assert outcome.answers[kind] > 5, f"{kind} hardly happened: {outcome}"
    assert outcome.answers["Deadline: stored"] > 0, f"no deadline was carried out: {outcome}"


async def test_histories_over_grpc_are_linearizable(runtime_database: Database) -> None:
    async with GrpcReplicas(runtime_database, SEED) as replicas:
        outcome = await check_many(replicas.new_run, [Plan(SEED + number) for number in range(30)])
        await _one_ended_by_deadline(runtime_database)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert replicas.cuts > 5, "no connection was cut"
    assert outcome.unanswered > 100, f"too little trouble to prove anything: {outcome}"
    for kind in (
        "Append: stored",
        "Append: again",
        "Append: stale_epoch",
        "Append: missing_field",
        "Append on a stream: stored",
        "Append on a stream: again",
        "Append on a stream: stale_epoch",
        "Append on a stream: no answer",
        "Deadline: no answer",
        "Read: read",
    ):
        assert outcome.answers[kind] > 5, f"{kind} hardly happened: {outcome}"


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=list(DEFECTS))
async def test_a_defect_is_found(runtime_database: Database, defect: Defect) -> None:
    """The same clients and the same trouble, on replicas that are wrong: within a few histories they are caught."""
    await _migrate(runtime_database, defect.migration)
    with defect.surroundings():
        async with Replicas(runtime_database, SEED, defect.store, defect.reader) as replicas:
            plans = [Plan(SEED + number) for number in range(100)]
            outcome = await check_many(replicas.new_run, plans, stop_at_failure=True)
    assert outcome.failures, f"nobody noticed: {outcome}"
    assert "no single copy answers like this" in outcome.failures[0]


@pytest.mark.parametrize("defect", STREAM_DEFECTS.values(), ids=list(STREAM_DEFECTS))
async def test_a_defect_of_whole_replicas_is_found(runtime_database: Database, defect: StreamDefect) -> None:
    await _migrate(runtime_database, defect.migration)
    with defect.surroundings():
        async with GrpcReplicas(
            runtime_database,
            SEED,
            kept_deadline_ms=defect.kept_deadline_ms,
            promised_deadline_ms=defect.promised_deadline_ms,
        ) as replicas:
            plans = [Plan(SEED + number) for number in range(300)]
            outcome = await check_many(replicas.new_run, plans, stop_at_failure=True)
    assert any(defect.found in failure for failure in outcome.failures), f"nobody noticed: {outcome}"


async def _one_ended_by_deadline(database: Database) -> None:
    """Return when the authority has ended a canceled run by itself."""
    admin = await asyncpg.connect(database.admin)
    query = "SELECT count(*) FROM runtime.events WHERE type = 'run.finished' AND position($1::bytea in body) > 0"
    async with asyncio.timeout(PATIENCE_S):
        while not await admin.fetchval(query, b"cancel_deadline"):
            await asyncio.sleep(0.01)
    await admin.close()


async def _migrate(database: Database, migration: str) -> None:
    admin = await asyncpg.connect(database.admin)
    await admin.execute(migration or "SELECT")
    await admin.close()


async def test_the_tables_hold_without_the_lock(runtime_database: Database) -> None:
    """The second line: keys of the tables let commits fail that the lock would have put in order."""
    with without_lock():
        async with Replicas(runtime_database, SEED) as replicas:
            outcome = await check_many(replicas.new_run, [Plan(SEED + number) for number in range(40)])
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.unanswered > 150, f"hardly any commit failed: {outcome}"
