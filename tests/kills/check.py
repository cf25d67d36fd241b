"""What must hold of a runtime's database and archive at any moment, also just after a kill.

Everything is read in one snapshot and held against the proofs, without asking any code of the service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import zstandard

from oa_base.refusal import Refusal
from oa_runlog.proof.checkpoint import Checkpoint, verify_receipt_log
from oa_runlog.proof.merkle import EMPTY_ROOT, inner_hash, leaf_hash
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.verify import Keys, verify_artifact, verify_record
from tests.kills.site import objects_in

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_RUNS = """
SELECT r.run_id, r.latest_seq, r.finish_time IS NOT NULL AS finished, r.archived, a.sha256, a.bytes, a.object,
       p.canonical_json, p.signature, p.key_id,
       ARRAY(SELECT e.body FROM runtime.events e WHERE e.run_id = r.run_id ORDER BY seq) AS events
FROM runtime.runs r
LEFT JOIN runtime.archived_runs a USING (run_id)
LEFT JOIN runtime.receipts p USING (run_id)
"""
_STRAYS = """
SELECT run_id FROM runtime.events UNION SELECT run_id FROM runtime.receipts
EXCEPT SELECT run_id FROM runtime.runs
"""
_LEAVES = """
SELECT l.leaf_index, l.run_id, r.canonical_json
FROM runtime.receipt_leaves l JOIN runtime.receipts r USING (run_id) ORDER BY l.leaf_index
"""


@dataclass
class Findings:
    """What was found: how far things have come, and everything that is wrong."""

    finished: set[str] = field(default_factory=set)
    archived: set[str] = field(default_factory=set)
    merged: int = 0
    unmerged: int = 0
    unrecorded_objects: int = 0
    """Objects without a record: the worst that a kill may leave in the archive."""
    wrong: list[str] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to be done."""
        return self.finished == self.archived and not self.unmerged


async def check(connection: Connection, archive: Path) -> Findings:
    """Look at everything, in a snapshot of its own unless the connection is in a transaction."""
    if connection.is_in_transaction():
        return await _check(connection, archive)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await _check(connection, archive)


async def _check(connection: Connection, archive: Path) -> Findings:
    found = Findings()
    keys = {row[0]: row[1] for row in await connection.fetch("SELECT key_id, public_key FROM runtime.receipt_keys")}
    rows = await connection.fetch(_RUNS)
    for row in rows:
        _check_run(row, keys, archive, found)
    found.wrong += [f"{row['run_id']}: there is no such run" for row in await connection.fetch(_STRAYS)]
    named = {row["object"] for row in rows if row["object"]}
    found.unrecorded_objects = len(objects_in(archive) - named)
    await _check_receipt_log(connection, keys, found)
    return found


# ------------------------------------------------------------------------------------------------- runs


def _check_run(row: Any, keys: Keys, archive: Path, found: Findings) -> None:
    """A run is in the log, whole, or in the archive, whole, and never in both."""
    run_id, events = row["run_id"], row["events"]
    if row["finished"]:
        found.finished.add(run_id)
    if row["archived"]:
        found.archived.add(run_id)
    if row["finished"] != (row["canonical_json"] is not None):
        found.wrong.append(f"{run_id}: a receipt, and not ended, or the other way round")
        return
    if row["archived"] != (row["object"] is not None) or len(events) != (0 if row["archived"] else row["latest_seq"]):
        found.wrong.append(f"{run_id}: {len(events)} events of {row['latest_seq']}, recorded as {row['object']}")
        return
    try:
        if row["archived"]:
            _check_artifact(row, keys, archive)
        elif row["finished"]:
            verify_record(_receipt(row), keys, events, run_id=run_id)
    except (Refusal, OSError, zstandard.ZstdError) as error:
        found.wrong.append(f"{run_id}: {error}")


def _check_artifact(row: Any, keys: Keys, archive: Path) -> None:
    unpack = zstandard.ZstdDecompressor().decompressobj()
    plain = unpack.decompress((archive / row["object"]).read_bytes())
    if not unpack.eof or (len(plain), sha256(plain).digest()) != (row["bytes"], row["sha256"]):
        raise Refusal("archive_damaged", "the object is not what the record says")
    verified = verify_artifact(plain.splitlines(keepends=True), keys, run_id=row["run_id"])
    if verified.receipt != _receipt(row) or verified.facts.count != row["latest_seq"]:
        raise Refusal("archive_damaged", "the object is not the run")


def _receipt(row: Any) -> SignedReceipt:
    return SignedReceipt(row["run_id"], row["canonical_json"], row["signature"], row["key_id"])


# ------------------------------------------------------------------------------------------------- the log of receipts


async def _check_receipt_log(connection: Connection, keys: Keys, found: Findings) -> None:
    """Each receipt is a leaf or waits; the leaves have no hole; every checkpoint signs a beginning of them."""
    rows = await connection.fetch(_LEAVES)
    leaves = [row["run_id"] for row in rows]
    waiting = [row[0] for row in await connection.fetch("SELECT run_id FROM runtime.receipts_unmerged")]
    receipts = [row[0] for row in await connection.fetch("SELECT run_id FROM runtime.receipts")]
    found.merged, found.unmerged = len(leaves), len(waiting)
    if Counter(leaves + waiting) != Counter(receipts):
        found.wrong.append("receipts are lost or doubled on their way into the log of receipts")
    if [row["leaf_index"] for row in rows] != list(range(len(rows))):
        found.wrong.append("the leaves have a hole")
    hashes = [leaf_hash(row["canonical_json"]) for row in rows]
    checkpoints = await _checkpoints(connection, keys)
    for checkpoint in checkpoints:
        if checkpoint.size > len(hashes) or checkpoint.root != root_of(hashes[: checkpoint.size]):
            found.wrong.append(f"what was signed of {checkpoint.size} leaves does not hold")
    newest = max((checkpoint.size for checkpoint in checkpoints), default=0)
    log = await connection.fetchrow("SELECT size, frontier FROM runtime.receipt_log")
    assert log is not None
    if not newest == log["size"] == len(hashes):
        found.wrong.append(f"{newest} leaves are signed, {log['size']} counted, {len(hashes)} there")
    if log["frontier"] != b"".join(_frontier(hashes)):
        found.wrong.append("the log would grow from a frontier that is not that of its leaves")


async def _checkpoints(connection: Connection, keys: Keys) -> list[Checkpoint]:
    rows = await connection.fetch("SELECT note FROM runtime.receipt_checkpoints ORDER BY size")
    return [verify_receipt_log(row["note"], keys.values()) for row in rows]


def _frontier(leaves: Sequence[bytes]) -> list[bytes]:
    """The roots of the largest perfect subtrees, the leftmost first: one for each bit of the size."""
    if not leaves:
        return []
    largest = 1 << len(leaves).bit_length() - 1
    return [root_of(leaves[:largest]), *_frontier(leaves[largest:])]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962's own definition."""
    if len(leaves) < 2:
        return leaves[0] if leaves else EMPTY_ROOT
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return inner_hash(root_of(leaves[:middle]), root_of(leaves[middle:]))
