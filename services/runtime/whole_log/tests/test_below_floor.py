"""TailLog from below the floor, on a real Postgres, over real gRPC: the log is what it was before anything left it."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.postgres.migrate import migrate
from oa_platform.postgres.pool import Postgres
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import log_service_pb2
from services.runtime.archive.app.archive import Archive
from services.runtime.archive.app.archiver import Archiver
from services.runtime.archive.metrics import ARCHIVE_DAMAGED
from services.runtime.archive.store.objects import DirectoryObjects
from services.runtime.archive.store.records import PostgresArchiveRecords
from services.runtime.archive.tests.damage import DAMAGES, damaged
from services.runtime.archive_settings import ArchiveSettings, ArtifactCacheSettings
from services.runtime.config import RuntimeSettings, TailSettings
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.store.reads import PostgresReads
from services.runtime.tests.archiving import archiver_of
from services.runtime.tests.pools import postgres_of
from services.runtime.tests.rig import (
    AS_PROJECTOR,
    FakeWorker,
    Replica,
    Somebody,
    finish,
    refusing,
    replica,
    runtime_settings,
    somebody,
    text,
)
from services.runtime.whole_log import metrics
from services.runtime.whole_log.app.artifact_cache import ArtifactCache
from services.runtime.whole_log.app.whole_log import WholeLog
from services.runtime.whole_log.domain import Entry
from services.runtime.whole_log.limits import ArtifactCacheLimits
from services.runtime.whole_log.store import PostgresPrunedLog
from services.runtime.wiring import MIGRATIONS

Log = dict[int, list[bytes]]
"""Partition -> the entries after a position."""


@dataclass
class Scene:
    """Finished runs whose events interleave, and what the log was before any of them left it."""

    database: Database
    settings: RuntimeSettings
    who: Somebody
    runtime: Replica
    runs: list[str]
    before: Log
    postgres: Postgres
    reads: PostgresReads
    pruned: PostgresPrunedLog
    records: PostgresArchiveRecords
    folder: Path

    def archiver(self) -> Archiver:
        """Called by hand."""
        return archiver_of(self.postgres, self.folder, self.settings.archive.limits())

    async def archive(self, *run_ids: str) -> None:
        """Move runs to the archive."""
        for run_id in run_ids:
            assert await self.archiver().archive_run(run_id)

    def whole_log(self, reads: PruningReads | None = None, limits: ArtifactCacheLimits | None = None) -> WholeLog:
        """A reader of its own."""
        archive = Archive(self.records, DirectoryObjects(self.folder), 1 << 30)
        cache = ArtifactCache(self.records, archive, limits or ArtifactCacheLimits())
        return WholeLog(reads or self.reads, reads or self.pruned, cache)

    async def object_of(self, run_id: str) -> Path:
        """The file of an archived run."""
        archived = await self.records.find(run_id)
        assert archived is not None
        return self.folder / archived.object

    @asynccontextmanager
    async def another(self, **changes: Any) -> AsyncIterator[Replica]:
        """One more replica."""
        async with replica(replace(self.settings, **changes), self.who.key) as runtime:
            yield runtime


@asynccontextmanager
async def scene(
    database: Database, folder: Path, count: int = 6, partitions: int = 1, rounds: int = 3
) -> AsyncIterator[Scene]:
    admin = await asyncpg.connect(database.admin)
    await admin.execute("UPDATE runtime.installation SET partitions = $1", partitions)
    await admin.close()
    who = somebody()
    settings = runtime_settings(
        database,
        archive=ArchiveSettings(url=str(folder / "archive")),
        tail=TailSettings(ring_entries=1, page_entries=7, page_bytes=2048),
    )
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(replica(settings, who.key))
        postgres = await stack.enter_async_context(postgres_of(database.runtime, "archiver"))
        reads, pruned, records = PostgresReads(postgres), PostgresPrunedLog(postgres), PostgresArchiveRecords(postgres)
        runs = await interleaved(runtime, who, count, rounds)
        before = await tailed(runtime)
        yield Scene(
            database, settings, who, runtime, runs, before, postgres, reads, pruned, records, folder / "archive"
        )


async def interleaved(runtime: Replica, who: Somebody, count: int, rounds: int) -> list[str]:
    """Runs that work in turns, and end one after the other."""
    worker = FakeWorker(runtime, who, slots=count)
    await worker.attach()
    runs = [(await runtime.create(who, f"interleaved-{number}")).run_id for number in range(count)]
    leases = {}
    for _ in runs:
        assigned = (await worker.next("assignment")).assignment
        leases[assigned.run.run_id] = assigned.lease_epoch
    for turn, run_id in itertools.product(range(rounds), runs):
        output = f"{run_id} {turn} ".encode() * (1 + turn * 7 % 11)
        await worker.append(run_id, leases[run_id], f"work-{turn}", text(output), text(output[::-1]))
    for run_id in runs:
        await worker.append(run_id, leases[run_id], "end", finish())
    worker.call.cancel()
    return runs


async def tailed(runtime: Replica, after: Mapping[int, int] | None = None) -> Log:
    """TailLog up to where the log stands now, asserting `last + 1` as every reader does.

    Raises the Refusal that the stream ends with; what came before is its `partial`.
    """
    described = await runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)
    heads = {place.partition: place.position for place in described.heads}
    log: Log = {partition: [] for partition in heads}
    begin = {partition: (after or {}).get(partition, 0) for partition in heads}
    places = [cursor_pb2.LogPosition(partition=one, position=at) for one, at in begin.items()]
    call = runtime.log.TailLog(
        log_service_pb2.TailLogRequest(epoch=described.epoch, after=places), metadata=AS_PROJECTOR
    )
    try:
        while any(begin[one] + len(log[one]) < head for one, head in heads.items()):
            message = await refusing(call.read())
            assert message.first_position == begin[message.partition] + len(log[message.partition]) + 1
            log[message.partition] += message.events
    except Refusal as refusal:
        raise Stopped(refusal, log) from None
    finally:
        call.cancel()
    return log


class Stopped(Exception):
    """A tail was refused after it had read `log`."""

    def __init__(self, refusal: Refusal, log: Log) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.log = log


async def pages(log: WholeLog, entries: int = 7) -> list[LogRecord]:
    """Partition 0 from position 0 to the head."""
    found: list[LogRecord] = []
    while page := await log.log_page(0, len(found), entries, 1 << 20):
        assert [one.position for one in page] == list(range(len(found) + 1, len(found) + 1 + len(page)))
        found += page
    return found


# ------------------------------------------------------------------------------------------------- the same as before


@pytest.mark.parametrize("partitions", [1, 16])
async def test_who_tails_from_below_the_floor_gets_what_was_there(
    runtime_database: Database, tmp_path: Path, partitions: int
) -> None:
    async with scene(runtime_database, tmp_path, partitions=partitions) as one:
        async with one.another() as second:
            for run_id in random.Random(1).sample(one.runs, len(one.runs)):
                await one.archive(run_id)
                assert await tailed(one.runtime) == one.before
                assert await tailed(second) == one.before
        async with one.another() as newly_started:
            for partition, entries in one.before.items():
                for position in range(0, len(entries), 5):
                    after = {number: len(log) for number, log in one.before.items()} | {partition: position}
                    assert (await tailed(newly_started, after))[partition] == entries[position:]


async def test_a_tail_goes_on_from_the_archive_over_the_floor_to_what_is_new(
    runtime_database: Database, tmp_path: Path
) -> None:
    async with scene(runtime_database, tmp_path) as one:
        await one.archive(*one.runs)
        head = len(one.before[0])
        call = one.runtime.log.TailLog(
            log_service_pb2.TailLogRequest(after=[cursor_pb2.LogPosition(partition=0)]), metadata=AS_PROJECTOR
        )
        log: list[bytes] = []
        while len(log) < head:
            log += (await refusing(call.read())).events
        assert log == one.before[0]
        await one.runtime.create(one.who, "new")
        news = await refusing(call.read())
        assert (news.first_position, len(news.events)) == (head + 1, 1)
        call.cancel()


async def test_records_out_of_the_archive_are_what_the_rows_were(runtime_database: Database, tmp_path: Path) -> None:
    """With run, seq and type too: a replica's own tail takes them, should it have been away for so long."""
    async with scene(runtime_database, tmp_path) as one:
        rows = await pages(one.whole_log())
        await one.archive(*one.runs[::2])
        # But for the chain, which the archive has once for a run.
        assert [(*row[:-1], b"") for row in rows] == [(*row[:-1], b"") for row in await pages(one.whole_log())]
        assert await one.pruned.floor(0) > 0


# ------------------------------------------------------------------------------------------------- races


class PruningReads(PostgresReads, PostgresPrunedLog):
    """Calls back after each read, before its answer is looked at: whatever is pruned then was pruned in between."""

    def __init__(self, scene: Scene, waiting: Sequence[str], at: int) -> None:
        super().__init__(scene.postgres)
        self._scene = scene
        self._waiting = list(waiting)
        self._at = at
        self.reads = 0

    async def _meanwhile(self) -> None:
        self.reads += 1
        if self.reads >= self._at and self._waiting:
            await self._scene.archive(self._waiting.pop())

    async def floor(self, partition: int) -> int:
        floor = await super().floor(partition)
        await self._meanwhile()
        return floor

    async def log_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[LogRecord]:
        page = await super().log_page(partition, after, max_entries, max_bytes)
        await self._meanwhile()
        return page

    async def whole_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[Entry]:
        page = await super().whole_page(partition, after, max_entries, max_bytes)
        await self._meanwhile()
        return page


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("order", [1, -1])
async def test_a_run_that_is_archived_between_two_reads_of_a_page_changes_nothing(
    runtime_database: Database, tmp_path: Path, at: int, order: int
) -> None:
    """From the read number `at` on one run is archived after each."""
    async with scene(runtime_database, tmp_path, count=4) as one:
        await one.archive(one.runs[0])
        reads = PruningReads(one, one.runs[1:][::order], at)
        found = await pages(one.whole_log(reads))
        assert [record.data for record in found] == one.before[0]
        assert reads.reads > at + 1


async def test_readers_race_archivers(runtime_database: Database, tmp_path: Path) -> None:
    """Two archivers take run after run; over three replicas, one with hardly any room, readers begin at 0 all the time,
    and each of them gets the whole log, byte for byte."""
    async with scene(runtime_database, tmp_path, count=14, partitions=2, rounds=5) as one, AsyncExitStack() as stack:
        small = ArtifactCacheSettings(artifacts=2, bytes=1, fetches=1)
        second = await stack.enter_async_context(one.another())
        third = await stack.enter_async_context(one.another(artifact_cache=small))
        waiting, passes = random.Random(2).sample(one.runs, len(one.runs)), 0

        async def archive() -> None:
            while waiting:
                await one.archive(waiting.pop())
                await asyncio.sleep(random.Random(len(waiting)).uniform(0, 0.1))

        async def read(runtime: Replica) -> None:
            nonlocal passes
            while not archived.done():
                assert await tailed(runtime) == one.before
                passes += 1
            assert await tailed(runtime) == one.before

        archived = asyncio.gather(archive(), archive())
        await asyncio.gather(archived, *(read(runtime) for runtime in (one.runtime, second, third) for _ in range(2)))
        assert await one.pruned.floor(0) == len(one.before[0])
        assert passes > 3


# ------------------------------------------------------------------------------------------------- damage and outages


def _first_of(one: Scene, run_id: str) -> int:
    """How many entries of the only partition stand before those of a run."""
    return next(at for at, data in enumerate(one.before[0]) if run_id.encode() in data)


@pytest.mark.parametrize("how", DAMAGES)
async def test_up_to_a_damaged_artifact_all_is_served_and_nothing_after_it(
    runtime_database: Database, tmp_path: Path, how: str
) -> None:
    async with scene(runtime_database, tmp_path) as one:
        await one.archive(*one.runs)
        run_id = one.runs[3]
        path = await one.object_of(run_id)
        good = path.read_bytes()
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(damaged(good, how))
        for _ in range(2):
            with pytest.raises(Stopped) as caught:
                await tailed(one.runtime)
            assert caught.value.refusal.reason == "archive_damaged"
            assert caught.value.refusal.metadata == {"run_id": run_id}
            assert caught.value.log[0] == one.before[0][: _first_of(one, run_id)]
        path.write_bytes(good)
        assert await tailed(one.runtime) == one.before


async def test_other_partitions_go_on_while_one_can_not_be_read(runtime_database: Database, tmp_path: Path) -> None:
    """Stream after stream, each from where the last one ended: a page at least, and so all of it in the end."""
    async with scene(runtime_database, tmp_path, count=20, partitions=4) as one:
        await one.archive(one.runs[0])
        (await one.object_of(one.runs[0])).unlink()
        after = dict.fromkeys(one.before, 0)
        for _ in range(40):
            with pytest.raises(Stopped) as caught:
                await tailed(one.runtime, after)
            after = {partition: at + len(caught.value.log[partition]) for partition, at in after.items()}
        behind = {partition for partition, at in after.items() if at < len(one.before[partition])}
        assert len(behind) == 1


async def test_an_entry_that_is_in_neither_place_is_refused(runtime_database: Database, tmp_path: Path) -> None:
    """A row was deleted behind everybody's back, above the floor and below it."""
    async with scene(runtime_database, tmp_path) as one:
        await one.archive(one.runs[0])
        admin = await asyncpg.connect(one.database.admin)
        await admin.execute("ALTER TABLE runtime.events DISABLE TRIGGER USER")
        floor = await one.pruned.floor(0)
        for lost in (floor + 2, floor - 2):
            await admin.execute("DELETE FROM runtime.events WHERE partition = 0 AND position = $1", lost)
            with pytest.raises(Stopped) as caught:
                await tailed(one.runtime)
            assert caught.value.refusal.reason == "archive_damaged"
            assert caught.value.refusal.metadata == {"partition": "0", "position": str(lost)}
            assert caught.value.log[0] == one.before[0][: lost - 1]
        await admin.close()


async def test_a_replica_without_an_archive_says_what_it_lacks(runtime_database: Database, tmp_path: Path) -> None:
    async with scene(runtime_database, tmp_path) as one, one.another(archive=ArchiveSettings()) as without:
        await one.archive(*one.runs[2:])
        with pytest.raises(Stopped) as caught:
            await tailed(without)
        assert caught.value.refusal.reason == "unavailable"
        assert "OA_ARCHIVE_URL" in caught.value.refusal.message
        assert caught.value.log[0] == one.before[0][: _first_of(one, one.runs[2])]
        assert await tailed(one.runtime) == one.before
        floor = await one.pruned.floor(0)
        assert (await tailed(without, {0: floor}))[0] == one.before[0][floor:], "above the floor it needs none"


async def test_an_archive_that_was_away_is_read_when_it_is_back(runtime_database: Database, tmp_path: Path) -> None:
    async with scene(runtime_database, tmp_path) as one:
        await one.archive(*one.runs)
        shutil.move(one.folder, tmp_path / "elsewhere")
        damages = value_of(ARCHIVE_DAMAGED)
        with pytest.raises(Stopped) as caught:
            await tailed(one.runtime)
        assert caught.value.refusal.reason == "unavailable"
        assert caught.value.refusal.retry_after_ms
        assert value_of(ARCHIVE_DAMAGED) == damages, "nothing is known to be missing"
        shutil.move(tmp_path / "elsewhere", one.folder)
        assert await tailed(one.runtime) == one.before


async def test_an_archive_that_stays_away_is_logged_once(runtime_database: Database, tmp_path: Path) -> None:
    async with scene(runtime_database, tmp_path) as one:
        await one.archive(*one.runs)
        shutil.move(one.folder, tmp_path / "elsewhere")
        failures = metrics.ARTIFACT_CACHE_FAILURES.labels("unavailable")
        before = value_of(failures)
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(Stopped):
                    await tailed(one.runtime)
        assert value_of(failures) >= before + 3
        assert [line["event"] for line in logs].count("archived_run_unreadable") == 1


# ------------------------------------------------------------------------------------------------- how much it takes


async def test_a_pass_fetches_each_artifact_once(runtime_database: Database, tmp_path: Path) -> None:
    async with scene(runtime_database, tmp_path, count=10, partitions=2) as one:
        await one.archive(*one.runs[1:])
        fetches, entries = value_of(metrics.ARTIFACT_CACHE_FETCHES), value_of(metrics.ARCHIVED_ENTRIES_READ)
        assert await tailed(one.runtime) == one.before
        assert value_of(metrics.ARTIFACT_CACHE_FETCHES) == fetches + 9
        # Created, started, two in each of three rounds, finished; but a partition's newest entry may be in memory.
        read = value_of(metrics.ARCHIVED_ENTRIES_READ) - entries
        assert 9 * 9 - 2 <= read <= 9 * 9


async def test_a_page_holds_no_more_bytes_than_it_may(runtime_database: Database, tmp_path: Path) -> None:
    async with scene(runtime_database, tmp_path) as one:
        await one.archive(*one.runs[::2])
        log = one.whole_log()
        for most in (1, 500, 2000):
            at = 0
            while page := await log.log_page(0, at, 1000, most):
                assert len(page) == 1 or sum(len(record.data) for record in page[:-1]) <= most
                at += len(page)
            assert at == len(one.before[0])


async def test_rows_come_as_bytes_alone_where_they_are_next_and_within_the_bytes(
    runtime_database: Database, tmp_path: Path
) -> None:
    async with scene(runtime_database, tmp_path) as one:
        log = one.before[0]
        assert await one.reads.bytes_page(0, 0, 1000, 1 << 20) == log
        assert await one.reads.bytes_page(0, 3, 4, 1 << 20) == log[3:7]
        size = sum(map(len, log[3:7]))
        assert await one.reads.bytes_page(0, 3, 4, size) == log[3:7]
        assert await one.reads.bytes_page(0, 3, 4, size - 1) == ()
        assert await one.reads.bytes_page(0, len(log), 4, size) == ()
        await one.archive(one.runs[0])
        first = _first_of(one, one.runs[0])
        for after in (first - 1, first):
            assert await one.reads.bytes_page(0, after, 4, size) == (), "a hole, within it or before it"


# ------------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("statement", ["UPDATE {} SET block = 0", "DELETE FROM {}", "TRUNCATE {}", "INSERT INTO {}"])
async def test_positions_are_never_changed(runtime_database: Database, tmp_path: Path, statement: str) -> None:
    async with scene(runtime_database, tmp_path, count=1) as one:
        await one.archive(one.runs[0])
        statement = statement.format("runtime.archived_positions")
        for dsn in (runtime_database.runtime, runtime_database.owner):
            if statement.startswith("INSERT"):
                if dsn == runtime_database.owner:
                    continue
                statement += " VALUES (0, 0, 'x', 1, '{1}')"
            connection = await asyncpg.connect(dsn)
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.RestrictViolationError)):
                await connection.execute(statement)
            await connection.close()


async def test_runs_that_were_archived_before_there_was_the_table_are_in_it(
    empty_database: Database, tmp_path: Path
) -> None:
    """And long ones are cut into blocks, of which each has its own part."""
    older = tmp_path / "older"
    older.mkdir()
    for file in sorted(MIGRATIONS.glob("*.sql"))[:4]:
        shutil.copy(file, older)
    await migrate(empty_database.owner, "runtime", older)
    admin = await asyncpg.connect(empty_database.admin)
    await admin.execute("SET session_replication_role = replica")  # no foreign keys for the moment
    runs = {"a": [1, 3, 1024, 1025, 2049], "b": [2, 1026]}
    add = "INSERT INTO runtime.archived_runs VALUES ($1, 7, $2, $3, 1, 1, 'x')"
    for run_id, positions in runs.items():
        await admin.execute(add, run_id, positions, bytes(32))
    await admin.execute("SET session_replication_role = origin")
    await migrate(empty_database.owner, "runtime", MIGRATIONS)
    await admin.execute("SET session_replication_role = DEFAULT")
    rows = await admin.fetch("SELECT * FROM runtime.archived_positions ORDER BY run_id, block")
    await admin.close()
    assert [tuple(row) for row in rows] == [
        (7, 0, "a", 1, [1, 3, 1024]),
        (7, 1, "a", 4, [1025]),
        (7, 2, "a", 5, [2049]),
        (7, 0, "b", 1, [2]),
        (7, 1, "b", 2, [1026]),
    ]
