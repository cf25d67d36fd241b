"""The log of receipts on a real Postgres: it holds every receipt once, only grows, and survives every crash."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.postgres.pool import Postgres
from oa_platform.system.ids import new_id
from oa_runlog.proof.checkpoint import Checkpoint, check_growth, verify_checkpoint, verify_logged
from oa_runlog.proof.merkle import (
    EMPTY_ROOT,
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    inclusion_proof,
    inner_hash,
    leaf_hash,
)
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.signing import NoteSigner, ReceiptSigner
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from services.runtime.receipts import metrics
from services.runtime.receipts.app.merger import Merger
from services.runtime.receipts.domain import Growth
from services.runtime.receipts.limits import MergeLimits
from services.runtime.receipts.store.receipt_log import PostgresMerge, PostgresReceiptLog
from services.runtime.tests.pools import postgres_of

ORIGIN = "openagents.dev/receipts/log_test"
KEY = Ed25519PrivateKey.generate()
NOTES = NoteSigner(ORIGIN, KEY)
SIGNER = ReceiptSigner(KEY)
QUICK = MergeLimits(page=7, pause_ms=1, poll_ms=20)


async def add_key(postgres: Postgres, signer: ReceiptSigner) -> None:
    async with postgres.acquire() as connection:
        await connection.execute("INSERT INTO runtime.receipt_keys VALUES ($1, $2)", signer.key_id, signer.public_key)


async def add_receipts(postgres: Postgres, count: int) -> list[SignedReceipt]:
    """Receipts as the sequencer stores them, several in a transaction; what they say is not the log's business."""
    receipts = [SignedReceipt(new_id("run"), os.urandom(40), bytes(64), SIGNER.key_id) for _ in range(count)]
    async with postgres.acquire() as connection:
        await connection.executemany(
            "INSERT INTO runtime.receipts VALUES ($1, $2, $3, $4)",
            [(one.run_id, one.canonical_json, one.signature, one.key_id) for one in receipts],
        )
    return receipts


def root_of(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962's own definition."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return inner_hash(root_of(leaves[:middle]), root_of(leaves[middle:]))


async def check_whole_log(postgres: Postgres, receipts: Sequence[SignedReceipt]) -> list[Checkpoint]:
    """Assert that the log holds exactly `receipts`, each with its proof, and every checkpoint continues the last."""
    by_run = {one.run_id: one for one in receipts}
    async with postgres.acquire() as connection:
        leaves = await connection.fetch("SELECT leaf_index, run_id FROM runtime.receipt_leaves ORDER BY leaf_index")
        notes = await connection.fetch("SELECT note FROM runtime.receipt_checkpoints ORDER BY size, created_at")
        assert await connection.fetchval("SELECT count(*) FROM runtime.receipts_unmerged") == 0
    assert [row["leaf_index"] for row in leaves] == list(range(len(receipts)))
    assert {row["run_id"] for row in leaves} == set(by_run)
    store = PostgresReceiptLog(postgres)
    hashes = [leaf_hash(by_run[row["run_id"]].canonical_json) for row in leaves]
    checkpoints = [verify_checkpoint(row["note"], NOTES.verifier_key) for row in notes]
    for checkpoint in checkpoints:
        assert checkpoint.root == root_of(hashes[: checkpoint.size])
    newest = checkpoints[-1]
    assert newest.size == len(receipts)
    for row in leaves:
        nodes = await store.nodes(inclusion_nodes(row["leaf_index"], newest.size))
        proof = inclusion_proof(row["leaf_index"], newest.size, nodes)
        verify_logged(by_run[row["run_id"]], row["leaf_index"], proof, newest)
    for before, after in pairwise(checkpoints):
        await check_grew(store, before, after)
    return checkpoints


async def check_grew(store: PostgresReceiptLog, before: Checkpoint, after: Checkpoint) -> None:
    proof: list[bytes] = []
    if 0 < before.size < after.size:
        nodes = await store.nodes(consistency_nodes(before.size, after.size))
        proof = consistency_proof(before.size, after.size, nodes)
    check_growth(before, after, proof)


async def test_receipts_become_leaves_in_the_order_in_which_they_were_stored(runtime_database: Database) -> None:
    async with postgres_of(runtime_database.runtime) as postgres:
        await add_key(postgres, SIGNER)
        store = PostgresReceiptLog(postgres)
        merger = Merger(store, NOTES, SIGNER.key_id, QUICK)
        await merger.merge_all()
        receipts: list[SignedReceipt] = []
        for count in (1, 2, 5, 0, 20):
            receipts += await add_receipts(postgres, count)
            assert (await store.backlog()).receipts == count
            await merger.merge_all()
        checkpoints = await check_whole_log(postgres, receipts)
        # A page of 7 is a checkpoint of its own: 20 receipts take three.
        assert [one.size for one in checkpoints] == [0, 1, 3, 8, 15, 22, 28]
        for index, one in enumerate(receipts):
            assert await store.leaf_index(one.run_id) == index


class CountingStore(PostgresReceiptLog):
    """Counts the transactions."""

    transactions = 0

    @asynccontextmanager
    async def merging(self) -> AsyncIterator[PostgresMerge | None]:
        self.transactions += 1
        async with super().merging() as merge:
            yield merge


async def test_only_a_full_page_is_followed_by_another_one(runtime_database: Database) -> None:
    async with postgres_of(runtime_database.runtime) as postgres:
        await add_key(postgres, SIGNER)
        for count, transactions in ((6, 1), (7, 2), (8, 2)):
            await add_receipts(postgres, count)
            store = CountingStore(postgres)
            await Merger(store, NOTES, SIGNER.key_id, QUICK).merge_all()
            assert (store.transactions, (await store.backlog()).receipts) == (transactions, 0)


async def test_a_receipt_that_can_not_be_merged_waits_and_keeps_no_other_out(runtime_database: Database) -> None:
    """A receipt of a table that was restored in part: it is in the log, and waits for it."""
    async with postgres_of(runtime_database.runtime) as postgres:
        await add_key(postgres, SIGNER)
        store = PostgresReceiptLog(postgres)
        merger = Merger(store, NOTES, SIGNER.key_id, QUICK)
        first = await add_receipts(postgres, 1)
        await merger.merge_all()
        async with postgres.acquire() as connection:
            await connection.execute("INSERT INTO runtime.receipts_unmerged VALUES ($1)", first[0].run_id)
        more = await add_receipts(postgres, 20)
        with capture_logs() as lines:
            await merger.merge_all()
        assert [line["run_id"] for line in lines if line["event"] == "quarantined"] == [first[0].run_id]
        assert (await store.backlog()).receipts == 1
        async with postgres.acquire() as connection:
            await connection.execute("DELETE FROM runtime.receipts_unmerged")
        await check_whole_log(postgres, first + more)


async def test_a_proof_reads_a_logarithm_of_the_log(runtime_database: Database) -> None:
    async with postgres_of(runtime_database.runtime) as postgres:
        await add_key(postgres, SIGNER)
        await add_receipts(postgres, 1000)
        merger = Merger(PostgresReceiptLog(postgres), NOTES, SIGNER.key_id, MergeLimits())
        await merger.merge_all()
        for index in (0, 511, 512, 999):
            assert len(inclusion_nodes(index, 1000)) <= 16
        async with postgres.acquire() as connection:
            assert await connection.fetchval("SELECT count(*) FROM runtime.receipt_nodes") < 2000


async def test_several_replicas_merge_at_once_while_receipts_arrive(runtime_database: Database) -> None:
    """Each receipt gets exactly one place, whoever merges, and no two checkpoints contradict each other."""
    async with AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(postgres_of(runtime_database.runtime, f"merger-{number}"))
            for number in range(4)
        ]
        await add_key(pools[0], SIGNER)
        mergers = [Merger(PostgresReceiptLog(pool), NOTES, SIGNER.key_id, QUICK) for pool in pools]
        tasks = [asyncio.create_task(merger.run()) for merger in mergers]
        receipts: list[SignedReceipt] = []

        async def write(pool: Postgres) -> None:
            for _ in range(20):
                receipts.extend(await add_receipts(pool, 5))

        await asyncio.gather(*(write(pool) for pool in pools))
        store = PostgresReceiptLog(pools[0])
        async with asyncio.timeout(60):
            while (await store.backlog()).receipts:
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(await check_whole_log(pools[0], receipts)) > 400 // 7


class DyingMerge(PostgresMerge):
    """A merge whose connection is killed at one step."""

    def __init__(self, inner: PostgresMerge, step: str, kill: Callable[[], Awaitable[None]]) -> None:
        super().__init__(inner._connection, inner.frontier)
        self._step = step
        self._kill = kill

    async def grow(self, growth: Growth) -> None:
        if self._step == "before the leaves":
            await self._kill()
        await super().grow(growth)
        if self._step == "before the checkpoint":
            await self._kill()

    async def add_checkpoint(self, size: int, key_id: str, note: bytes) -> None:
        await super().add_checkpoint(size, key_id, note)
        if self._step == "before the commit":
            await self._kill()


class DyingStore(PostgresReceiptLog):
    """Hands out merges that die."""

    def __init__(self, postgres: Postgres, admin: asyncpg.Connection, step: str) -> None:
        super().__init__(postgres)
        self._admin = admin
        self._step = step

    @asynccontextmanager
    async def merging(self) -> AsyncIterator[PostgresMerge | None]:
        async with super().merging() as merge:
            assert merge is not None
            pid = await merge._connection.fetchval("SELECT pg_backend_pid()")

            async def kill() -> None:
                await self._admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)

            yield DyingMerge(merge, self._step, kill)


@pytest.mark.parametrize("step", ["before the leaves", "before the checkpoint", "before the commit"])
async def test_a_merge_that_is_killed_leaves_the_log_as_it_was(runtime_database: Database, step: str) -> None:
    admin = await asyncpg.connect(runtime_database.admin)
    try:
        async with postgres_of(runtime_database.runtime) as postgres:
            await add_key(postgres, SIGNER)
            store = PostgresReceiptLog(postgres)
            merger = Merger(store, NOTES, SIGNER.key_id, QUICK)
            receipts = await add_receipts(postgres, 3)
            await merger.merge_all()
            published = await store.checkpoint()
            receipts += await add_receipts(postgres, 2)
            with pytest.raises(Refusal) as caught:
                await Merger(DyingStore(postgres, admin, step), NOTES, SIGNER.key_id, QUICK).merge_all()
            assert caught.value.reason == "unavailable"
            assert await store.checkpoint() == published
            assert (await store.backlog()).receipts == 2
            await merger.merge_all()
            await check_whole_log(postgres, receipts)
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("error", "failures"),
    # A defect that meets both receipts together, and each alone, is not one of a receipt.
    [(Refusal("unavailable", "the database is away"), 1), (RuntimeError("a defect"), 3)],
    ids=repr,
)
async def test_a_database_that_fails_is_tried_again_and_counted(
    runtime_database: Database, error: Exception, failures: int
) -> None:
    class FailingOnce(PostgresReceiptLog):
        left = failures

        @asynccontextmanager
        async def merging(self) -> AsyncIterator[PostgresMerge | None]:
            if self.left:
                self.left -= 1
                raise error
            async with super().merging() as merge:
                yield merge

    failed = value_of(metrics.MERGES_FAILED)
    async with postgres_of(runtime_database.runtime) as postgres:
        await add_key(postgres, SIGNER)
        receipts = await add_receipts(postgres, 2)
        store = FailingOnce(postgres)
        task = asyncio.create_task(Merger(store, NOTES, SIGNER.key_id, QUICK).run())
        async with asyncio.timeout(60):
            while (await store.backlog()).receipts:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await check_whole_log(postgres, receipts)
    assert value_of(metrics.MERGES_FAILED) == failed + 1


async def test_who_finds_the_log_locked_leaves_it_and_measures_the_lag(runtime_database: Database) -> None:
    async with postgres_of(runtime_database.runtime) as postgres:
        await add_key(postgres, SIGNER)
        receipts = await add_receipts(postgres, 3)
        merger = Merger(PostgresReceiptLog(postgres), NOTES, SIGNER.key_id, QUICK)
        async with PostgresReceiptLog(postgres).merging():
            await merger.merge_all()
            assert value_of(metrics.UNMERGED) == 3
            assert 0 < value_of(metrics.MERGE_LAG_SECONDS) < 60
        await merger.merge_all()
        assert (value_of(metrics.UNMERGED), value_of(metrics.MERGE_LAG_SECONDS)) == (0, 0)
        assert value_of(metrics.RECEIPT_LOG_SIZE) == 3
        await check_whole_log(postgres, receipts)


async def test_around_a_rotation_both_keys_sign_and_either_is_enough(runtime_database: Database) -> None:
    newer_key = Ed25519PrivateKey.generate()
    newer, newer_notes = ReceiptSigner(newer_key), NoteSigner(ORIGIN, newer_key)
    async with postgres_of(runtime_database.runtime) as postgres:
        await add_key(postgres, SIGNER)
        await add_key(postgres, newer)
        store = PostgresReceiptLog(postgres)
        await add_receipts(postgres, 3)
        await Merger(store, NOTES, SIGNER.key_id, QUICK).merge_all()
        old = await store.checkpoint()
        await Merger(store, newer_notes, newer.key_id, QUICK).merge_all()
        both = await store.checkpoint()
        assert old is not None
        assert both is not None
        for key in (NOTES.verifier_key, newer_notes.verifier_key):
            assert verify_checkpoint(both.note, key).size == 3
        # The old checkpoint is still good, and continued by what only the new key signs.
        await add_receipts(postgres, 2)
        await Merger(store, newer_notes, newer.key_id, QUICK).merge_all()
        last = await store.checkpoint()
        assert last is not None
        keys = (NOTES.verifier_key, newer_notes.verifier_key)
        await check_grew(store, verify_checkpoint(old.note, *keys), verify_checkpoint(last.note, *keys))


FORBIDDEN = (
    "UPDATE runtime.receipt_leaves SET leaf_index = leaf_index + 10",
    "DELETE FROM runtime.receipt_leaves",
    "UPDATE runtime.receipt_nodes SET hash = decode(repeat('00', 32), 'hex')",
    "DELETE FROM runtime.receipt_nodes",
    "UPDATE runtime.receipt_checkpoints SET note = ''",
    "DELETE FROM runtime.receipt_checkpoints",
    "UPDATE runtime.receipt_log SET size = 0, frontier = ''",
    "UPDATE runtime.receipt_log SET frontier = decode(repeat('00', 32 * 2), 'hex')",
    "DELETE FROM runtime.receipt_log",
    "DELETE FROM runtime.receipts_unmerged",
    "TRUNCATE runtime.receipts_unmerged",
    "TRUNCATE runtime.receipt_leaves",
    "TRUNCATE runtime.receipt_nodes",
    "TRUNCATE runtime.receipt_checkpoints",
)


async def test_nobody_changes_the_log_of_receipts(runtime_database: Database) -> None:
    """Neither the service, whatever it may be talked into, nor the owner of the tables by a slip."""
    async with postgres_of(runtime_database.runtime) as postgres:
        await add_key(postgres, SIGNER)
        await add_receipts(postgres, 3)
        await Merger(PostgresReceiptLog(postgres), NOTES, SIGNER.key_id, QUICK).merge_all()
        receipts = await add_receipts(postgres, 1)
    for dsn in (runtime_database.runtime, runtime_database.owner):
        connection = await asyncpg.connect(dsn)
        try:
            for statement in FORBIDDEN:
                with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.RestrictViolationError)):
                    await connection.execute(statement)
        finally:
            await connection.close()
    async with postgres_of(runtime_database.runtime) as postgres:
        assert (await PostgresReceiptLog(postgres).backlog()).receipts == len(receipts)
