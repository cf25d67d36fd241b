"""The check that stands behind the kills bites: each thing that a kill could do wrong is planted, and found."""

from __future__ import annotations

import asyncio
from pathlib import Path

from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from services.runtime.archive.tests.archive_rig import archive_rig
from tests.kills.check import Connection, Findings, check

LOST = {
    "an event": "DELETE FROM runtime.events WHERE run_id = $1 AND seq = 3",
    "the last event": "DELETE FROM runtime.events WHERE run_id = $1 AND seq = 5",
    "all events": "DELETE FROM runtime.events WHERE run_id = $1",
    "a changed event": (
        "UPDATE runtime.events SET body = (SELECT body FROM runtime.events WHERE run_id = $1 AND seq = 3) "
        "WHERE run_id = $1 AND seq = 4"
    ),
    "the run": "DELETE FROM runtime.runs WHERE run_id = $1",
    "its receipt": "DELETE FROM runtime.receipts WHERE run_id = $1",
    "its leaf": "DELETE FROM runtime.receipt_leaves WHERE run_id = $1",
    "a leaf twice": "INSERT INTO runtime.receipt_leaves VALUES (3, $1)",
    "a leaf that waits": "INSERT INTO runtime.receipts_unmerged VALUES ($1)",
    "a hole": "UPDATE runtime.receipt_leaves SET leaf_index = 17 WHERE run_id = $1",
    "another order": "UPDATE runtime.receipt_leaves SET leaf_index = (leaf_index + 1) % 3 WHERE $1 <> ''",
    "what was signed": "DELETE FROM runtime.receipt_checkpoints WHERE $1 <> ''",
    "the size": "UPDATE runtime.receipt_log SET size = 2, frontier = substring(frontier FOR 32) WHERE $1 <> ''",
    "the frontier": "UPDATE runtime.receipt_log SET frontier = sha256('') || sha256('') WHERE $1 <> ''",
    "a record without pruning": (
        "INSERT INTO runtime.archived_runs (run_id, partition, positions, sha256, bytes, stored_bytes, object) "
        "SELECT $1, partition, positions, sha256, bytes, stored_bytes, object FROM runtime.archived_runs LIMIT 1"
    ),
    "pruning without a record": "DELETE FROM runtime.archived_runs WHERE $1 <> ''",
    "a mark that is not set": "UPDATE runtime.runs SET archived = false WHERE $1 <> ''",
    "another run's object": (
        "UPDATE runtime.runs SET archived = (run_id = $1); UPDATE runtime.archived_runs SET run_id = $1"
    ),
}
"""What is lost or wrong -> how it comes about, for the run $1, which is in the log."""


# Without triggers, foreign keys and what is unique in the log of receipts.
_UNHINDERED = """
SET LOCAL session_replication_role = replica;
ALTER TABLE runtime.receipt_leaves DROP CONSTRAINT receipt_leaves_pkey, DROP CONSTRAINT receipt_leaves_run_id_key;
"""


async def _damaged(admin: Connection, archive: Path, statement: str, run_id: str) -> Findings:
    """What is found after a statement that nothing hinders; it is undone."""
    undone = admin.transaction()
    await undone.start()
    await admin.execute(_UNHINDERED)
    for one in statement.split("; "):
        await admin.execute(one, run_id)
    found = await check(admin, archive)
    await undone.rollback()
    return found


async def test_the_check_finds_each_damage_and_nothing_else(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        await rig.archiver().archive_run(rig.runs[0])
        async with asyncio.timeout(PATIENCE_S):
            while (found := await check(rig.admin, rig.folder)).merged < len(rig.runs):
                await asyncio.sleep(0.05)
        assert (found.wrong, found.archived, found.finished) == ([], {rig.runs[0]}, set(rig.runs))
        for what, statement in LOST.items():
            assert (await _damaged(rig.admin, rig.folder, statement, rig.runs[1])).wrong, what
        assert (await check(rig.admin, rig.folder)).wrong == []
        (path,) = [path for path in rig.objects() if path.suffix == ".zst"]
        packed = path.read_bytes()
        for changed in (packed[:-1], packed[:40] + bytes([packed[40] ^ 1]) + packed[41:], b""):
            path.write_bytes(changed)
            assert (await check(rig.admin, rig.folder)).wrong
        path.unlink()
        assert (await check(rig.admin, rig.folder)).wrong
