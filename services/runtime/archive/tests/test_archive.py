"""The archive on a real Postgres: only what was stored, read back and verified leaves the log, and nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
import zstandard
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.config.loading import load
from oa_platform.config.shared import QuarantineSettings
from oa_platform.health.quarantine import Quarantine
from oa_runlog.proof.replay import artifact_lines
from oa_runlog.proof.verify import verify_receipt
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from openagents.runtime.v1 import receipt_service_pb2
from openagents.sync.v1 import topic_service_pb2
from services.runtime.archive import metrics
from services.runtime.archive.app.archive import Archive, Archived, ArchiveRecords
from services.runtime.archive.app.archiver import Archiver
from services.runtime.archive.app.spool import Spool
from services.runtime.archive.limits import ArchiveLimits
from services.runtime.archive.store.objects import DirectoryObjects
from services.runtime.archive.tests.archive_rig import OUTPUTS, Rig, archive_rig, only_default
from services.runtime.archive.tests.damage import DAMAGES, damaged
from services.runtime.archive_settings import ArchiveSettings
from services.runtime.config import RuntimeSettings
from services.runtime.receipts.store.receipts import PostgresReceipts
from services.runtime.retention.domain import KEEP_ALL
from services.runtime.retention.store import PostgresOldestRuns
from services.runtime.tests.fetching import fetched, keys_of
from services.runtime.tests.finished import finished_runs
from services.runtime.tests.rig import (
    AS_GATEWAY,
    Replica,
    refusal_of_call,
    replica,
    runtime_settings,
    somebody,
)

# ------------------------------------------------------------------------------------------------- the whole way


async def test_an_archived_run_reads_the_same_as_before(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        before = await fetched(rig.runtime, rig.who, run_id)
        assert await rig.archiver().archive_run(run_id) is True
        assert [await rig.events(one) for one in rig.runs] == [0, 5, 5]
        # Two other artifacts push the one that was read before out of what is kept.
        for other in rig.runs[1:]:
            await fetched(rig.runtime, rig.who, other)
        assert await fetched(rig.runtime, rig.who, run_id) == before
        run = await rig.runtime.run(rig.who, run_id)
        assert run.latest_seq == 5
        request = receipt_service_pb2.GetReceiptRequest(run_id=run_id)
        receipt = (await rig.runtime.receipts.GetReceipt(request, metadata=rig.who.as_person())).receipt
        assert receipt.canonical_json.decode() in before.decode().replace('\\"', '"')


async def test_the_object_is_the_artifact_compressed_under_the_name_of_its_hash(
    runtime_database: Database, tmp_path: Path
) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        before = await fetched(rig.runtime, rig.who, run_id)
        await rig.archiver().archive_run(run_id)
        (path,) = rig.objects()
        assert zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()) == before
        archived = await rig.records.find(run_id)
        assert archived is not None
        assert path.name == f"{archived.sha256.hex()}.jsonl.zst"
        assert path.relative_to(rig.folder).as_posix() == archived.object


async def test_the_background_task_takes_what_is_old_enough(runtime_database: Database, tmp_path: Path) -> None:
    """Of two replicas with the task, on a retention of one second."""
    who = somebody()
    archive = str(tmp_path / "archive")
    limits = ArchiveSettings(url=archive, classes=only_default(1), poll_ms=20, lease_ms=500, page=1)
    settings = runtime_settings(runtime_database, archive=limits)
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        runs = await finished_runs(one, who, *OUTPUTS)
        running = await one.create(who, "running")
        artifacts = [await fetched(one, who, run_id) for run_id in runs]
        async with asyncio.timeout(60):
            for run_id in runs:
                while (await _described(two, run_id)).floor == 0:
                    await asyncio.sleep(0.05)
        assert [await fetched(two, who, run_id) for run_id in runs] == artifacts
        assert (await _described(two, running.run_id)).floor == 0


async def test_nothing_is_archived_before_its_time(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        assert await rig.archiver(age_s=3600).archive_page() == 0
        assert await rig.archiver(page=2).archive_page() == 2
        assert await rig.archiver(page=2).archive_page() == 1
        assert await rig.archiver(page=2).archive_page() == 0
        assert await PostgresOldestRuns(rig.postgres).oldest() == {}


def test_pruning_needs_an_archive(runtime_database: Database) -> None:
    assert [variable for variable, _ in ArchiveSettings(classes=only_default(1)).problems()] == ["OA_ARCHIVE_URL"]
    assert runtime_settings(runtime_database).archive.classes == KEEP_ALL
    for url in ("relative/path", "http://x", "s3://", "s3://A_B"):
        with pytest.raises(Refusal):
            load(RuntimeSettings, {"OA_ARCHIVE_URL": url})


# ------------------------------------------------------------------------------------------------- floors


async def _described(runtime: Replica, run_id: str) -> topic_service_pb2.DescribeTopicResponse:
    request = topic_service_pb2.DescribeTopicRequest(topic=f"run:{run_id}:events")
    return await runtime.topics.DescribeTopic(request, metadata=AS_GATEWAY)


async def test_the_topic_keeps_its_head_and_says_its_floor(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        await rig.archiver().archive_run(run_id)
        described = await _described(rig.runtime, run_id)
        assert (described.floor, described.head) == (5, 5)

        def replay(after: int, chain: bytes = b"") -> topic_service_pb2.ReplayTopicRequest:
            return topic_service_pb2.ReplayTopicRequest(
                topic=f"run:{run_id}:events", epoch=described.epoch, after_seq=after, after_chain=chain
            )

        for after in (0, 4):
            refusal = await refusal_of_call(rig.runtime.topics.ReplayTopic(replay(after), metadata=AS_GATEWAY))
            assert refusal.reason == "retention_floor_breach"
            assert refusal.metadata["floor"] == "5"
        at_floor = await rig.runtime.topics.ReplayTopic(replay(5), metadata=AS_GATEWAY)
        assert (list(at_floor.page.frames), at_floor.floor) == ([], 5)
        admin = await asyncpg.connect(runtime_database.admin)
        head = await admin.fetchval("SELECT chain_head FROM runtime.runs WHERE run_id = $1", run_id)
        await admin.close()
        await rig.runtime.topics.ReplayTopic(replay(5, head), metadata=AS_GATEWAY)
        for after, chain, reason in ((4, head, "retention_floor_breach"), (5, b"?" * 32, "epoch_mismatch")):
            refusal = await refusal_of_call(rig.runtime.topics.ReplayTopic(replay(after, chain), metadata=AS_GATEWAY))
            assert refusal.reason == reason


# ------------------------------------------------------------------------------------------------- crashes and damage


class Killed(Exception):
    """The process ends here."""


class DyingObjects(DirectoryObjects):
    """Dies at one step of the way."""

    def __init__(self, folder: Path, step: str) -> None:
        super().__init__(folder)
        self._step = step

    async def put(self, name: str, data: Spool) -> None:
        if self._step == "before the write":
            raise Killed
        await super().put(name, data)
        if self._step == "after the write":
            raise Killed

    async def get(self, name: str) -> AsyncIterator[bytes]:
        async for piece in super().get(name):
            yield piece
        if self._step == "after the verification":
            raise Killed


@pytest.mark.parametrize("step", ["before the write", "after the write", "after the verification"])
async def test_a_crash_on_the_way_loses_nothing(runtime_database: Database, tmp_path: Path, step: str) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        before = await fetched(rig.runtime, rig.who, run_id)
        with pytest.raises(Killed):
            await rig.archiver(DyingObjects(rig.folder, step)).archive_run(run_id)
        assert await rig.events(run_id) == 5
        assert await rig.records.find(run_id) is None
        assert await fetched(rig.runtime, rig.who, run_id) == before
        assert await rig.archiver().archive_run(run_id) is True
        assert len(rig.objects()) == 1, "the object of the first try has the same name"
        assert await rig.archiver().archive_run(run_id) is False


async def test_a_database_that_dies_in_the_prune_keeps_both_or_neither(
    runtime_database: Database, tmp_path: Path
) -> None:
    """The prune waits for a lock; its backend is killed meanwhile."""
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        blocker = await asyncpg.connect(runtime_database.admin)
        block = blocker.transaction()
        await block.start()
        await blocker.execute("LOCK TABLE runtime.log_floors IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(rig.archiver().archive_run(run_id))
        async with asyncio.timeout(60):
            while not (
                pid := await rig.admin.fetchval(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                    " AND query LIKE '%archive_run(%' AND wait_event_type = 'Lock'"
                )
            ):
                await asyncio.sleep(0.02)
        await rig.admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        with pytest.raises(Refusal) as caught:
            await task
        assert caught.value.reason == "unavailable"
        await block.rollback()
        await blocker.close()
        assert await rig.events(run_id) == 5
        assert await rig.records.find(run_id) is None
        assert await rig.archiver().archive_run(run_id) is True


class ChangingObjects(DirectoryObjects):
    """A store that changes, cuts, or loses what it was given."""

    def __init__(self, folder: Path, how: str) -> None:
        super().__init__(folder)
        self._how = how

    async def get(self, name: str) -> AsyncIterator[bytes]:
        data = b"".join([piece async for piece in super().get(name)])
        yield damaged(data, self._how)


@pytest.mark.parametrize("how", DAMAGES)
async def test_what_does_not_come_back_as_it_went_is_not_pruned(
    runtime_database: Database, tmp_path: Path, how: str
) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        with pytest.raises(Refusal) as caught:
            await rig.archiver(ChangingObjects(rig.folder, how)).archive_run(run_id)
        assert caught.value.reason == "archive_damaged"
        assert await rig.events(run_id) == 5


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_damaged_object_is_never_served(runtime_database: Database, tmp_path: Path, how: str) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        await rig.archiver().archive_run(run_id)
        archive = Archive(rig.records, ChangingObjects(rig.folder, how), 1 << 30)
        with pytest.raises(Refusal) as caught:
            await archive.fetch(run_id)
        assert (caught.value.reason, caught.value.metadata) == ("archive_damaged", {"run_id": run_id})


class ExpandingObjects(DirectoryObjects):
    """A store in which every object is 16 KiB that expand to 512 MiB: blocks of 4 bytes that repeat a byte."""

    async def get(self, name: str) -> AsyncIterator[bytes]:
        block = (128 * 1024 << 3 | 1 << 1).to_bytes(3, "little") + b"x"
        yield bytes.fromhex("28b52ffd0058") + 4096 * block


async def test_an_object_that_expands_takes_little_memory(tmp_path: Path) -> None:
    archive = Archive(cast("ArchiveRecords", None), ExpandingObjects(tmp_path), 1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="holds more than was put there"):
            await archive.read(Archived("run_1", bytes(32), 1000, "object"))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


async def test_an_artifact_that_does_not_prove_its_run_is_not_pruned(
    runtime_database: Database, tmp_path: Path
) -> None:
    """An event was changed in the database, behind everybody's back: the log must be kept as it is."""
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        await rig.admin.execute("ALTER TABLE runtime.events DISABLE TRIGGER USER")
        await rig.admin.execute(
            "UPDATE runtime.events SET body = (SELECT body FROM runtime.events WHERE run_id = $1 AND seq = 3) "
            "WHERE run_id = $1 AND seq = 4",
            run_id,
        )
        with pytest.raises(Refusal) as caught:
            await rig.archiver().archive_run(run_id)
        assert caught.value.reason == "archive_damaged"
        assert await rig.events(run_id) == 5


async def test_one_run_that_fails_does_not_hold_up_the_others(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        await rig.admin.execute("ALTER TABLE runtime.events DISABLE TRIGGER USER")
        await rig.admin.execute("DELETE FROM runtime.events WHERE run_id = $1 AND seq = 3", rig.runs[0])
        archiver = rig.archiver(page=1)
        while await archiver.archive_page():
            pass
        assert [await rig.events(run_id) for run_id in rig.runs] == [4, 0, 0]
        assert await rig.archiver(retry_s=0).archive_page() == 1, "it is tried again after the pause"


async def test_a_full_temporary_disk_holds_up_no_other_run(
    runtime_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        write, left = os.write, 0

        def full(descriptor: int, data: memoryview) -> int:
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, data)

        monkeypatch.setattr("services.runtime.archive.app.spool.os.write", full)
        archiver = rig.archiver(retry_s=3600)
        while await archiver.archive_page():
            pass
        monkeypatch.undo()
        assert await rig.archiver(retry_s=0).archive_page() == 1, "the one that failed"


async def test_a_removal_that_takes_too_long_is_given_up(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        blocker = await asyncpg.connect(runtime_database.admin)
        block = blocker.transaction()
        await block.start()
        await blocker.execute("LOCK TABLE runtime.log_floors IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Refusal) as caught:
            await rig.archiver(prune_timeout_ms=150).archive_run(rig.runs[0])
        assert caught.value.reason == "deadline_exceeded"
        await block.rollback()
        await blocker.close()
        assert await rig.events(rig.runs[0]) == 5


async def test_failures_are_counted(runtime_database: Database, tmp_path: Path) -> None:
    failed = value_of(metrics.ARCHIVES_FAILED.labels("archive_damaged"))
    damaged_objects = value_of(metrics.ARCHIVE_DAMAGED)
    archived = value_of(metrics.RUNS_ARCHIVED)
    async with archive_rig(runtime_database, tmp_path) as rig:
        await rig.archiver(ChangingObjects(rig.folder, "cut")).archive_page()
        await rig.archiver().archive_page()
    assert value_of(metrics.ARCHIVES_FAILED.labels("archive_damaged")) == failed + 3
    assert value_of(metrics.ARCHIVE_DAMAGED) == damaged_objects + 3
    assert value_of(metrics.RUNS_ARCHIVED) == archived + 3


class Due:
    """More runs are due than may be left out."""

    def __init__(self, runs: int) -> None:
        self._runs = [f"run_{number}" for number in range(runs)]
        self.looks = 0

    async def hold(self, *_: object) -> bool:
        return True

    async def due(self, _ages: object, except_for: Sequence[str], limit: int) -> list[str]:
        self.looks += 1
        if self.looks > 3 * len(self._runs):
            pytest.fail("it never pauses")
        return [run_id for run_id in self._runs if run_id not in except_for][:limit]


async def test_an_archive_that_is_away_for_more_runs_than_are_left_out_is_asked_with_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(_archiver: Archiver, _run_id: str) -> bool:
        raise Refusal("unavailable", "away")

    async def paused(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Archiver, "archive_run", away)
    monkeypatch.setattr("services.runtime.archive.app.archiver.asyncio.sleep", paused)
    due, nothing = Due(runs=9), cast("Any", None)
    limits = ArchiveLimits(classes=only_default(0))
    archiver = Archiver("rep_test", nothing, cast("Any", due), nothing, nothing, nothing, limits)
    monkeypatch.setattr(archiver, "_failed", Quarantine("archiver", "run_id", QuarantineSettings(max_things=2)))
    with pytest.raises(KeyboardInterrupt):
        await archiver.run()


@pytest.mark.parametrize("error", [Refusal("unavailable", "away"), RuntimeError("a defect")], ids=repr)
async def test_an_archiver_that_fails_goes_on(
    runtime_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    looks = 0

    async def fail() -> int:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        raise error

    async with archive_rig(runtime_database, tmp_path) as rig:
        archiver = rig.archiver()
        monkeypatch.setattr(archiver, "archive_page", fail)
        monkeypatch.setattr(archiver, "_limits", replace(archiver._limits, poll_ms=0))
        with capture_logs() as logs, pytest.raises(KeyboardInterrupt):
            await archiver.run()
    failures = [line["event"] for line in logs if line["log_level"] in ("warning", "error")]
    assert failures == ["archiving_failed"] * 2


async def test_an_archive_that_is_away_is_unavailable(runtime_database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    async with archive_rig(runtime_database, tmp_path) as rig:
        objects = DirectoryObjects(tmp_path / "file")
        with pytest.raises(Refusal) as caught:
            await rig.archiver(objects).archive_run(rig.runs[0])
        assert caught.value.reason == "unavailable"
        assert await rig.events(rig.runs[0]) == 5
        await rig.archiver().archive_run(rig.runs[0])
        without = Archive(rig.records, None, 1 << 30)
        with pytest.raises(Refusal) as caught:
            await without.fetch(rig.runs[0])
        assert caught.value.reason == "unavailable"


# ------------------------------------------------------------------------------------------------- the database's own


async def test_one_replica_archives_at_a_time(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        assert await rig.records.hold("one", 600_000)
        assert not await rig.records.hold("two", 600_000)
        assert await rig.records.hold("one", 1)
        await asyncio.sleep(0.01)
        assert await rig.records.hold("two", 600_000), "a lease without a sign of life lapses"
        assert await rig.archiver().archive_page() == 0


@pytest.mark.parametrize("wrong", ["running", "unknown", "chain"])
async def test_the_database_prunes_nothing_that_is_not_proved(
    runtime_database: Database, tmp_path: Path, wrong: str
) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        running = await rig.runtime.create(rig.who, "running")
        run_id = {"running": running.run_id, "unknown": "run_01JD8V0000000000000000000A"}.get(wrong, rig.runs[0])
        archived = Archived(run_id, bytes(32), 1, "x")
        with pytest.raises(Refusal) as caught:
            await rig.records.archive(archived, 1, bytes(32), 1000)
        assert caught.value.reason == "archive_damaged"
        assert await rig.admin.fetchval("SELECT count(*) FROM runtime.archived_runs") == 0
        assert await rig.events(rig.runs[0]) == 5


async def test_events_leave_by_no_other_way(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        await rig.archiver().archive_run(rig.runs[0])
        forbidden = (
            "DELETE FROM runtime.events",
            "TRUNCATE runtime.events",
            "DELETE FROM runtime.archived_runs",
            "UPDATE runtime.archived_runs SET object = 'x'",
            "TRUNCATE runtime.archived_runs CASCADE",
        )
        for dsn in (runtime_database.runtime, runtime_database.owner):
            connection = await asyncpg.connect(dsn)
            for statement in forbidden:
                with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.RestrictViolationError)):
                    await connection.execute(statement)
            await connection.close()
        for plane in (runtime_database.control, runtime_database.projector):
            connection = await asyncpg.connect(plane)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("SELECT runtime.archive_run('x', '', 1, 1, 'x', '')")
            await connection.close()
        assert [await rig.events(run_id) for run_id in rig.runs] == [0, 5, 5]


async def test_what_left_the_log_can_be_put_in_its_place_again(runtime_database: Database, tmp_path: Path) -> None:
    """The artifact has the events, the record their positions: together they are the rows that were pruned."""
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[1]
        rows = await rig.admin.fetch(
            "SELECT position, seq, body FROM runtime.events WHERE run_id = $1 ORDER BY seq", run_id
        )
        receipt = await PostgresReceipts(rig.postgres).receipt(run_id)
        assert receipt is not None
        await rig.archiver().archive_run(run_id)
        positions = await rig.admin.fetchval("SELECT positions FROM runtime.archived_runs WHERE run_id = $1", run_id)
        assert positions == [row["position"] for row in rows]
        assert await _archived_bytes(rig, run_id) == b"".join(artifact_lines(receipt, [row["body"] for row in rows]))
        verify_receipt(receipt, await keys_of(rig.runtime, rig.who), run_id=run_id)


async def _archived_bytes(rig: Rig, run_id: str) -> bytes:
    spool = await Archive(rig.records, DirectoryObjects(rig.folder), 1 << 30).fetch(run_id)
    assert spool is not None
    return b"".join(spool.pieces())
