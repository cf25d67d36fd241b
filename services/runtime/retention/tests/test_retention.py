"""Classes of retention: who may have which, what each means for the archive, and what becomes of one that is gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.config.loading import load
from oa_platform.postgres.migrate import migrate
from oa_platform.postgres.pool import Postgres
from oa_platform.telemetry.metrics import REGISTRY
from oa_runlog import wire
from oa_runlog.events import RunCreated
from oa_testing.postgres import Database
from openagents.common.v1 import options_pb2
from openagents.runtime.v1 import event_pb2, run_service_pb2
from services.runtime.archive.limits import ArchiveLimits
from services.runtime.archive.store import sql
from services.runtime.archive.store.records import PostgresArchiveRecords
from services.runtime.archive_settings import ArchiveSettings
from services.runtime.config_parsers import MAX_AGE_S, retention_classes
from services.runtime.retention.app import RetentionWatch
from services.runtime.retention.domain import KEEP_ALL, RetentionClasses
from services.runtime.retention.store import READ_OLDEST_RUNS, PostgresOldestRuns
from services.runtime.tests.archiving import archiver_of
from services.runtime.tests.finished import finished_runs
from services.runtime.tests.pools import postgres_of
from services.runtime.tests.rig import Replica, Somebody, refusal_of_call, replica, runtime_settings, somebody
from services.runtime.wiring import MIGRATIONS

DAY_S = 86_400
THREE = RetentionClasses((("default", 30 * DAY_S), ("short", DAY_S), ("audit", None)))
THREE_KEPT = RetentionClasses(tuple((name, None) for name, _ in THREE.classes))
parse = retention_classes().parse

# ------------------------------------------------------------------------------------------------- the setting


def test_the_setting_is_a_list_of_names_and_ages() -> None:
    classes = parse("default=30d, short=24h,audit=keep,x-1_y=90m,z=1s")
    assert classes.names == {"default", "short", "audit", "x-1_y", "z"}
    assert classes.ages == {"default": 30 * DAY_S, "short": DAY_S, "x-1_y": 5400, "z": 1}
    assert parse(str(classes)) == classes
    assert parse(str(KEEP_ALL)) == KEEP_ALL
    assert KEEP_ALL.names == {"default"}
    assert not KEEP_ALL.ages


@pytest.mark.parametrize(
    "given",
    [
        "short=1d",  # no default
        "default",
        "default=",
        "default=30",  # 30 of what?
        "default=-1d",
        "default=0s",
        "default=1.5d",
        "default=1w",
        f"default={MAX_AGE_S + 1}s",
        "default=never",
        "default=1d,",
        "default=1d,default=2d",
        "default=1d,Short=1d",
        "default=1d,1st=1d",
        f"default=1d,{'a' * 33}=1d",
    ],
)
def test_what_is_no_such_list_is_refused(given: str) -> None:
    with pytest.raises(Refusal) as caught:
        load(ArchiveSettings, {"OA_RETENTION_CLASSES": given, "OA_ARCHIVE_URL": "/archive"})
    assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_RETENTION_CLASSES")


def test_ages_up_to_the_longest_are_taken() -> None:
    assert parse(f"default={MAX_AGE_S}s").ages == {"default": MAX_AGE_S}


def test_a_class_can_be_asked_for_exactly_when_it_can_be_configured() -> None:
    field = event_pb2.RunSpec.DESCRIPTOR.fields_by_name["retention_class"]
    rules = field.GetOptions().Extensions[options_pb2.rules]
    assert (rules.pattern, rules.max_length) == ("[a-z][a-z0-9_-]*", 32)
    longest = "a" * rules.max_length
    assert parse(f"default=keep,{longest}=1d").ages == {longest: DAY_S}


# ------------------------------------------------------------------------------------------------- asking for a class


async def test_a_run_has_the_class_that_it_asked_for(runtime_database: Database) -> None:
    who = somebody()
    limits = ArchiveSettings(classes=THREE_KEPT)
    async with replica(runtime_settings(runtime_database, archive=limits), who.key) as runtime:
        for asked, meant in (("", "default"), ("default", "default"), ("short", "short"), ("audit", "audit")):
            run = await runtime.create(who, f"k-{asked}", retention_class=asked)
            assert run.spec.retention_class == asked
            assert (await runtime.run(who, run.run_id)).spec.retention_class == asked
            assert await _recorded(runtime_database, run.run_id) == (asked, meant)


async def _recorded(database: Database, run_id: str) -> tuple[str, str]:
    """What the log says, and what the archiver goes by."""
    connection = await asyncpg.connect(database.runtime)
    body = wire.decode_event(
        await connection.fetchval("SELECT body FROM runtime.events WHERE run_id = $1 AND seq = 1", run_id)
    ).body
    row = await connection.fetchval("SELECT retention_class FROM runtime.runs WHERE run_id = $1", run_id)
    await connection.close()
    assert isinstance(body, RunCreated)
    return body.spec.retention_class, row


async def test_a_class_that_there_is_not_is_refused_and_nothing_is_stored(runtime_database: Database) -> None:
    who = somebody()
    limits = ArchiveSettings(classes=THREE_KEPT)
    async with replica(runtime_settings(runtime_database, archive=limits), who.key) as runtime:
        for name in ("gone", "Short", "a" * 33):
            spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["x"]), retention_class=name)
            request = run_service_pb2.CreateRunRequest(idempotency_key="k", spec=spec)
            refusal = await refusal_of_call(runtime.runs.CreateRun(request, metadata=who.as_person()))
            assert (refusal.reason, refusal.field) == ("invalid_value", "spec.retention_class")
            if name == "gone":
                assert refusal.metadata["retention_classes"] == "audit, default, short"
                assert "audit, default, short" in refusal.message
    connection = await asyncpg.connect(runtime_database.runtime)
    assert await connection.fetchval("SELECT count(*) FROM runtime.runs") == 0
    await connection.close()


async def test_a_repetition_is_answered_as_before_when_its_class_is_gone(runtime_database: Database) -> None:
    who = somebody()
    limits = ArchiveSettings(classes=THREE_KEPT)
    async with replica(runtime_settings(runtime_database, archive=limits), who.key) as runtime:
        first = await runtime.create(who, "k", retention_class="short")
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        assert (await runtime.create(who, "k", retention_class="short")).run_id == first.run_id


# ------------------------------------------------------------------------------------------------- what is due


@dataclass
class Rig:
    """A replica that knows three classes and archives nothing by itself."""

    runtime: Replica
    who: Somebody
    postgres: Postgres
    records: PostgresArchiveRecords
    folder: Path
    admin: Any

    async def finished(self, retention_class: str, days_ago: float) -> str:
        """A run of this class that finished so long ago."""
        output = f"{retention_class} {days_ago}".encode()
        (run_id,) = await finished_runs(self.runtime, self.who, output, retention_class=retention_class)
        await self.admin.execute(
            "UPDATE runtime.runs SET finish_time = finish_time - $2 * interval '1 day' WHERE run_id = $1",
            run_id,
            days_ago,
        )
        return run_id

    async def archived(self) -> set[str]:
        """Runs whose events have left the log."""
        rows = await self.admin.fetch("SELECT run_id FROM runtime.archived_runs")
        return {row["run_id"] for row in rows}

    async def archive(self, classes: RetentionClasses = THREE) -> None:
        """Archive what is due."""
        limits = ArchiveLimits(url=str(self.folder), classes=classes)
        archiver = archiver_of(self.postgres, self.folder, limits)
        while await archiver.archive_page():
            pass


@asynccontextmanager
async def retention_rig(database: Database, folder: Path) -> AsyncIterator[Rig]:
    who = somebody()
    limits = ArchiveSettings(classes=THREE_KEPT, poll_ms=3_600_000)
    admin = await asyncpg.connect(database.admin)
    async with (
        replica(runtime_settings(database, archive=limits), who.key) as runtime,
        postgres_of(database.runtime, "archiver") as postgres,
    ):
        yield Rig(runtime, who, postgres, PostgresArchiveRecords(postgres), folder, admin)
    await admin.close()


async def test_each_run_leaves_at_the_age_of_its_class(runtime_database: Database, tmp_path: Path) -> None:
    async with retention_rig(runtime_database, tmp_path) as rig:
        leave = {await rig.finished("short", 1.1), await rig.finished("default", 30.1), await rig.finished("", 31)}
        for stays in (("short", 0.9), ("default", 29), ("", 2), ("audit", 10_000)):
            await rig.finished(*stays)
        await rig.archive()
        assert await rig.archived() == leave


async def test_what_is_due_longest_goes_first_whatever_its_class(runtime_database: Database, tmp_path: Path) -> None:
    async with retention_rig(runtime_database, tmp_path) as rig:
        order = [
            await rig.finished("short", 9),  # due for 8 days
            await rig.finished("default", 37),  # 7
            await rig.finished("short", 3),  # 2
            await rig.finished("default", 31),  # 1
        ]
        assert await rig.records.due(THREE.ages, [], 10) == order
        assert await rig.records.due(THREE.ages, [], 3) == order[:3]
        assert await rig.records.due(THREE.ages, order[:1], 2) == order[1:3]
        assert await rig.records.due({}, [], 10) == []


async def test_runs_of_a_class_that_is_gone_stay_and_are_seen(runtime_database: Database, tmp_path: Path) -> None:
    async with retention_rig(runtime_database, tmp_path) as rig:
        stranded, other = await rig.finished("short", 100), await rig.finished("", 100)
        without = RetentionClasses((("default", DAY_S),))
        await rig.archive(without)
        assert await rig.archived() == {other}

        watch = RetentionWatch(PostgresOldestRuns(rig.postgres), without, 10_000)
        with capture_logs() as logs:
            await watch.look()
            await watch.look()
        told = [line for line in logs if line["event"].startswith("retention")]  # others of the process may log, too
        assert [(line["event"], line["retention_class"]) for line in told] == [("retention_class_unknown", "short")]
        seen = _gauge("oa_runtime_retention_unknown_seconds", "short")
        assert seen is not None
        assert 100 * DAY_S <= seen < 101 * DAY_S

        # Once the class is there again, they leave as if it had always been.
        await rig.archive(THREE)
        assert await rig.archived() == {stranded, other}
        await watch.look()
        assert _gauge("oa_runtime_retention_unknown_seconds", "short") is None


async def test_each_class_says_how_far_it_is_behind(runtime_database: Database, tmp_path: Path) -> None:
    async with retention_rig(runtime_database, tmp_path) as rig:
        await rig.finished("short", 3)
        await rig.finished("short", 0.5)
        await rig.finished("default", 29)
        await rig.finished("audit", 1000)
        oldest = await PostgresOldestRuns(rig.postgres).oldest()
        assert {name: round(age_s / DAY_S) for name, age_s in oldest.items()} == {
            "short": 3,
            "default": 29,
            "audit": 1000,
        }
        await RetentionWatch(PostgresOldestRuns(rig.postgres), THREE, 10_000).look()
        behind = _gauge("oa_runtime_archive_lag_seconds", "short")
        assert behind is not None
        assert round(behind / DAY_S) == 2
        assert _gauge("oa_runtime_archive_lag_seconds", "default") == 0
        assert _gauge("oa_runtime_archive_lag_seconds", "audit") is None


def _gauge(name: str, retention_class: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"retention_class": retention_class})


@pytest.mark.parametrize("error", [Refusal("unavailable", "away"), RuntimeError("a defect")], ids=repr)
async def test_a_watch_without_a_database_goes_on(error: Exception) -> None:
    class Away:
        looks = 0

        async def oldest(self) -> dict[str, float]:
            Away.looks += 1
            if Away.looks == 3:
                raise KeyboardInterrupt
            raise error

    with capture_logs() as logs, pytest.raises(KeyboardInterrupt):
        await RetentionWatch(Away(), KEEP_ALL, 0).run()
    assert [line["event"] for line in logs] == ["retention_not_seen"] * 2


# ------------------------------------------------------------------------------------------------- the database's own


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (sql.READ_DUE_RUNS, (["default", "short"], [30 * DAY_S, DAY_S], [], 10)),
        (READ_OLDEST_RUNS, ()),
    ],
    ids=["due", "oldest"],
)
async def test_a_look_costs_what_it_finds_and_not_what_waits(
    runtime_database: Database, statement: str, arguments: tuple[object, ...]
) -> None:
    """Of thousands of finished runs that are not due, no step of the plan reads more than a few."""
    admin = await asyncpg.connect(runtime_database.admin)
    await admin.execute(_FINISHED_ROWS, 6000)
    await admin.execute(_THREE_CLASSES)
    await admin.execute("VACUUM ANALYZE runtime.runs")
    plan = json.loads(await admin.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments))
    await admin.close()
    read = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == "runs"]
    assert read
    for node in read:
        assert node["Index Name"] == "runs_to_archive"
        assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 10, node


# The n-th ended n seconds ago. They have rows and no events.
_FINISHED_ROWS = """
INSERT INTO runtime.runs (
    run_id, partition, org_id, user_id, create_key, create_fingerprint, adapter, spec, create_time, status, latest_seq,
    chain_head, lease_epoch, worker_id, fenced, attempt, cancel_reason, finish_time, finish, totals, paced_until_ns)
SELECT 'run_' || n, 0, 'org', 'usr', n::text, '', 'exec', '', now(), 'succeeded', 1, sha256(''), 1, '', false, 1, '',
       now() - n * interval '1 second', '', '{}', 0
FROM generate_series(1, $1::integer) n
"""
_THREE_CLASSES = """
UPDATE runtime.runs SET retention_class = (ARRAY['audit', 'default', 'short'])[1 + create_key::integer % 3]
"""


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for inner in plan.get("Plans", []) for node in _nodes(inner))]


async def test_runs_from_before_there_were_classes_have_the_default_one(
    empty_database: Database, tmp_path: Path
) -> None:
    for path in sorted(MIGRATIONS.glob("000[123]_*.sql")):
        shutil.copy(path, tmp_path)
    await migrate(empty_database.owner, "runtime", tmp_path)
    admin = await asyncpg.connect(empty_database.admin)
    await admin.execute(_FINISHED_ROWS, 2)
    await migrate(empty_database.owner, "runtime", MIGRATIONS)
    rows = await admin.fetch("SELECT DISTINCT retention_class FROM runtime.runs")
    await admin.close()
    assert [row["retention_class"] for row in rows] == ["default"]
