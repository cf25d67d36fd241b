"""One run, three replicas, several clients, and everything goes wrong: what they were told is what one copy would tell.

`python -m tests.linearizability --histories 10000` is the long form, with `--grpc` for whole replicas.
"""

from __future__ import annotations

import asyncpg
import pytest

from oa_testing.postgres import Database
from tests.order.harness import Trouble

from .campaign import check_many
from .defects import DEFECTS, Defect, without_lock
from .grpc_replicas import GrpcReplicas
from .replicas import Replicas
from .workload import Plan

SEED = 20261122


@pytest.mark.timeout(240)
async def test_histories_of_three_replicas_are_linearizable(runtime_database: Database) -> None:
    async with Replicas(runtime_database, Trouble(), SEED) as replicas:
        outcome = await check_many(replicas.new_run, [Plan(SEED + number) for number in range(150)])
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.operations == 150 * 30
    assert replicas.kills > 10, "no connection was killed"
    assert 500 < outcome.unanswered < 2000, f"too little trouble to prove anything, or too much: {outcome}"
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
        "Read: read",
    ):
        assert outcome.answers[kind] > 5, f"{kind} hardly happened: {outcome}"


@pytest.mark.timeout(240)
async def test_histories_over_grpc_are_linearizable(runtime_database: Database) -> None:
    async with GrpcReplicas(runtime_database, Trouble(kill_interval_s=0.15), SEED) as replicas:
        outcome = await check_many(replicas.new_run, [Plan(SEED + number) for number in range(30)])
    assert not outcome.failures, "\n".join(outcome.failures)
    assert replicas.cuts > 5, "no connection was cut"
    assert outcome.unanswered > 100, f"too little trouble to prove anything: {outcome}"
    for kind in ("Append: stored", "Append: again", "Append: stale_epoch", "Read: read"):
        assert outcome.answers[kind] > 5, f"{kind} hardly happened: {outcome}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("defect", DEFECTS.values(), ids=list(DEFECTS))
async def test_a_defect_is_found(runtime_database: Database, defect: Defect) -> None:
    """The same clients and the same trouble, on replicas that are wrong: within a few histories they are caught."""
    if defect.migration:
        admin = await asyncpg.connect(runtime_database.admin)
        await admin.execute(defect.migration)
        await admin.close()
    with defect.surroundings():
        async with Replicas(runtime_database, Trouble(), SEED, defect.store, defect.reader) as replicas:
            plans = [Plan(SEED + number) for number in range(100)]
            outcome = await check_many(replicas.new_run, plans, stop_at_failure=True)
    assert outcome.failures, f"nobody noticed: {outcome}"
    assert "no single copy answers like this" in outcome.failures[0]


@pytest.mark.timeout(120)
async def test_the_tables_hold_without_the_lock(runtime_database: Database) -> None:
    """The second line: keys of the tables let commits fail that the lock would have put in order."""
    with without_lock():
        async with Replicas(runtime_database, Trouble(), SEED) as replicas:
            outcome = await check_many(replicas.new_run, [Plan(SEED + number) for number in range(40)])
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.unanswered > 300, f"hardly any commit failed: {outcome}"
