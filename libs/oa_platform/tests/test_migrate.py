"""Migrations are applied once, in order, whole or not at all; a history that was changed is refused."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Secret
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres import migrate as module
from oa_platform.postgres.at_start import check_schema
from oa_platform.postgres.migrate import check, migrate, read_directory
from oa_testing.fork_server import PYTHON
from oa_testing.postgres import Database, free_port

ONE = ("0001_first.sql", "CREATE TABLE runtime.first (n int);")
TWO = ("0002_second.sql", "CREATE TABLE runtime.second (n int); INSERT INTO runtime.second VALUES (1);")


def _write(directory: Path, *files: tuple[str, str]) -> Path:
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*"):
        old.unlink()
    for name, sql in files:
        (directory / name).write_text(sql)
    return directory


async def _fetchval(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _refused(dsn: str, directory: Path) -> str:
    with pytest.raises(Refusal) as caught:
        await migrate(dsn, "runtime", directory)
    assert caught.value.reason == "migration_refused"
    return caught.value.message


async def test_each_is_applied_once_in_order(empty_database: Database, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", ONE)
    assert await migrate(empty_database.owner, "runtime", directory) == [ONE[0]]
    assert await migrate(empty_database.owner, "runtime", directory) == []
    _write(directory, ONE, TWO)
    assert await migrate(empty_database.owner, "runtime", directory) == [TWO[0]]
    assert await _fetchval(empty_database.owner, "SELECT count(*) FROM runtime.second") == 1


async def test_a_time_limit_for_everybody_ends_no_migration(empty_database: Database, tmp_path: Path) -> None:
    admin = await asyncpg.connect(empty_database.admin)
    try:
        await admin.execute(f'ALTER DATABASE "{empty_database.name}" SET statement_timeout = 100')
    finally:
        await admin.close()
    slow = ("0001_slow.sql", "SELECT pg_sleep(0.5); CREATE TABLE runtime.slow (n int);")
    assert await migrate(empty_database.owner, "runtime", _write(tmp_path / "m", slow)) == ["0001_slow.sql"]


async def test_services_have_histories_of_their_own(empty_database: Database, tmp_path: Path) -> None:
    await migrate(empty_database.owner, "runtime", _write(tmp_path / "m", ONE))
    other = _write(tmp_path / "n", ("0001_first.sql", "CREATE TABLE control.first (n int)"))
    assert await migrate(empty_database.owner, "control", other) == ["0001_first.sql"]


async def test_many_at_once_apply_each_once(empty_database: Database, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", ONE, TWO)
    applied = await asyncio.gather(*(migrate(empty_database.owner, "runtime", directory) for _ in range(5)))
    assert sorted(name for names in applied for name in names) == [ONE[0], TWO[0]]


async def test_a_failing_file_leaves_nothing_and_those_before_it_stay(empty_database: Database, tmp_path: Path) -> None:
    bad = ("0002_bad.sql", "CREATE TABLE runtime.half (n int); SELECT * FROM nothing_like_it;")
    directory = _write(tmp_path / "m", ONE, bad)
    assert "0002_bad.sql can't be applied" in await _refused(empty_database.owner, directory)
    assert await _fetchval(empty_database.owner, "SELECT to_regclass('runtime.half')") is None
    assert await migrate(empty_database.owner, "runtime", _write(directory, ONE, TWO)) == [TWO[0]]


async def test_a_changed_history_is_refused(empty_database: Database, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", ONE, TWO)
    await migrate(empty_database.owner, "runtime", directory)
    for files, complaint in (
        ((("0001_first.sql", ONE[1] + " "), TWO), "0001_first.sql was changed"),
        ((("0001_renamed.sql", ONE[1]), TWO), "0001_renamed.sql was changed"),
    ):
        _write(directory, *files)
        assert complaint in await _refused(empty_database.owner, directory)
        with pytest.raises(Refusal):
            await check(empty_database.runtime, "runtime", directory)


EXPAND = ("0003_third.sql", "ALTER TABLE runtime.first ADD COLUMN m int")
_END_WHO_WAITS = """
SELECT bool_or(pg_terminate_backend(pid)) FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE datname = current_database() AND relation = 'runtime.first'::regclass AND NOT granted"""
CONTRACT = ("0004_contract_first.sql", "ALTER TABLE runtime.first DROP COLUMN n")
NEXT = ("0005_fifth.sql", "CREATE TABLE runtime.fifth (n int)")


async def test_the_release_before_starts_on_an_expanded_schema_and_not_on_a_contracted_one(
    empty_database: Database, tmp_path: Path
) -> None:
    before, now = _write(tmp_path / "before", ONE, TWO), tmp_path / "now"
    await migrate(empty_database.owner, "runtime", before)
    assert await migrate(empty_database.owner, "runtime", _write(now, ONE, TWO, EXPAND, CONTRACT)) == [EXPAND[0]]
    await check(empty_database.runtime, "runtime", before)
    await check(empty_database.runtime, "runtime", now)  # a service does not wait for what only takes away
    assert await migrate(empty_database.owner, "runtime", before) == []  # it is back, and there is nothing to do
    assert await migrate(empty_database.owner, "runtime", now, contract=True) == [CONTRACT[0]]
    await check(empty_database.runtime, "runtime", now)
    with pytest.raises(Refusal) as caught:
        await check(empty_database.runtime, "runtime", before)
    assert f"{CONTRACT[0]} was applied to this database" in caught.value.message


async def test_a_release_is_not_left_out(empty_database: Database, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", ONE, TWO)
    await migrate(empty_database.owner, "runtime", directory)
    _write(directory, ONE, TWO, EXPAND, CONTRACT, NEXT)
    assert f"{NEXT[0]} waits behind {CONTRACT[0]}" in await _refused(empty_database.owner, directory)
    assert await _fetchval(empty_database.owner, "SELECT to_regclass('runtime.fifth')") is None


async def test_a_new_database_takes_all(empty_database: Database, tmp_path: Path) -> None:
    files = (ONE, TWO, EXPAND, CONTRACT, NEXT)
    names = await migrate(empty_database.owner, "runtime", _write(tmp_path / "m", *files))
    assert names == [name for name, _ in files]


async def test_nobody_waits_long_behind_a_migration_that_gets_no_lock(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader holds the table: the migration gives way again and again, and is applied once the reader is gone."""
    monkeypatch.setattr(module, "STATEMENT_LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(module, "RETRY_PAUSE_S", 0.01)
    directory = _write(tmp_path / "m", ONE)
    await migrate(empty_database.owner, "runtime", directory)
    reader = await asyncpg.connect(empty_database.owner)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetchval("SELECT count(*) FROM runtime.first")
    third = ("0002_third.sql", EXPAND[1])
    migrating = asyncio.create_task(migrate(empty_database.owner, "runtime", _write(directory, ONE, third)))
    gave_way = "SELECT count(*) > 0 FROM pg_stat_database WHERE datname = current_database() AND xact_rollback > 0"
    async with asyncio.timeout(60):
        while not await _fetchval(empty_database.owner, gave_way):
            await asyncio.sleep(0.02)
    assert not migrating.done()
    await transaction.rollback()
    assert await migrating == [third[0]]
    await reader.close()


async def test_a_migration_that_never_gets_its_lock_is_refused(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATEMENT_LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0)
    directory = _write(tmp_path / "m", ONE)
    await migrate(empty_database.owner, "runtime", directory)
    reader = await asyncpg.connect(empty_database.owner)
    async with reader.transaction():
        await reader.fetchval("SELECT count(*) FROM runtime.first")
        refused = await _refused(empty_database.owner, _write(directory, ONE, ("0002_third.sql", EXPAND[1])))
    assert "0002_third.sql got no lock" in refused
    await reader.close()


async def test_a_migration_that_loses_a_deadlock_is_tried_again(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service locked the same tables in another order, and Postgres chose to end the migration."""
    monkeypatch.setattr(module, "RETRY_PAUSE_S", 0.01)
    tries = ("0001_first.sql", "CREATE SEQUENCE runtime.tries;")
    loses = "DO $$ BEGIN IF nextval('runtime.tries') = 1 THEN RAISE SQLSTATE '40P01'; END IF; END $$;"
    directory = _write(tmp_path / "m", tries, ("0002_second.sql", loses))
    assert await migrate(empty_database.owner, "runtime", directory) == ["0001_first.sql", "0002_second.sql"]
    assert await _fetchval(empty_database.owner, "SELECT last_value FROM runtime.tries") == 2


async def test_a_migration_whose_connection_ends_is_unavailable_and_the_next_try_applies_it(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is wrong with the migration: a server that restarts, or a network that breaks, ended it."""
    monkeypatch.setattr(module, "STATEMENT_LOCK_TIMEOUT_MS", 600_000)
    directory = _write(tmp_path / "m", ONE)
    await migrate(empty_database.owner, "runtime", directory)
    holder = await asyncpg.connect(empty_database.owner)
    third = ("0002_third.sql", EXPAND[1])
    async with holder.transaction(), asyncio.timeout(60):
        await holder.execute("LOCK TABLE runtime.first")
        migrating = asyncio.create_task(migrate(empty_database.owner, "runtime", _write(directory, ONE, third)))
        while not await _fetchval(empty_database.owner, _END_WHO_WAITS):
            await asyncio.sleep(0.02)
        with pytest.raises(Refusal) as caught:
            await migrating
    assert (caught.value.reason, caught.value.field) == ("unavailable", module.URL_VARIABLE)
    assert await migrate(empty_database.owner, "runtime", directory) == [third[0]]
    await holder.close()


INDEX = (
    "0002_index.sql",
    "-- Why; and for what.\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS first_n ON runtime.first (n);\n",
)
WITHOUT_INDEX = ("0003_contract_index.sql", "DROP INDEX CONCURRENTLY IF EXISTS runtime.first_n")
_IS_VALID = "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid = to_regclass('runtime.first_n')"


async def test_a_table_is_written_while_a_migration_builds_its_index(empty_database: Database, tmp_path: Path) -> None:
    """The build waits for a transaction that wrote the table. Nobody waits behind the build."""
    directory = _write(tmp_path / "m", ONE)
    await migrate(empty_database.owner, "runtime", directory)
    writer, other = [await asyncpg.connect(empty_database.runtime) for _ in range(2)]
    async with asyncio.timeout(60):
        async with writer.transaction():
            await writer.execute("INSERT INTO runtime.first VALUES (1)")
            migrating = asyncio.create_task(migrate(empty_database.owner, "runtime", _write(directory, ONE, INDEX)))
            while await _fetchval(empty_database.owner, _IS_VALID) is None:
                await asyncio.sleep(0.02)
            await other.execute("SET lock_timeout = '10s'")
            await other.execute("INSERT INTO runtime.first VALUES (2)")
            assert await _fetchval(empty_database.owner, _IS_VALID) is False
        assert await migrating == [INDEX[0]]
    assert await _fetchval(empty_database.owner, _IS_VALID) is True
    _write(directory, ONE, INDEX, WITHOUT_INDEX)
    assert await migrate(empty_database.owner, "runtime", directory, contract=True) == [WITHOUT_INDEX[0]]
    assert await _fetchval(empty_database.owner, _IS_VALID) is None
    await writer.close()
    await other.close()


async def test_an_index_that_was_not_built_to_its_end_is_built_anew(empty_database: Database, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", ONE)
    await migrate(empty_database.owner, "runtime", directory)
    await _fetchval(empty_database.owner, "INSERT INTO runtime.first VALUES (1), (1)")
    _write(directory, ONE, INDEX)
    assert "0002_index.sql can't be applied (could not create unique index" in await _refused(
        empty_database.owner, directory
    )
    assert await _fetchval(empty_database.owner, _IS_VALID) is False
    with pytest.raises(Refusal):
        await check(empty_database.runtime, "runtime", directory)
    await _fetchval(empty_database.owner, "DELETE FROM runtime.first")
    assert await migrate(empty_database.owner, "runtime", directory) == [INDEX[0]]
    assert await _fetchval(empty_database.owner, _IS_VALID) is True


async def test_an_index_that_was_built_and_not_noted_is_kept(empty_database: Database, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", ONE)
    await migrate(empty_database.owner, "runtime", directory)
    await _fetchval(empty_database.owner, INDEX[1])
    number = await _fetchval(empty_database.owner, "SELECT to_regclass('runtime.first_n')::oid")
    assert await migrate(empty_database.owner, "runtime", _write(directory, ONE, INDEX)) == [INDEX[0]]
    assert await _fetchval(empty_database.owner, "SELECT to_regclass('runtime.first_n')::oid") == number


async def test_an_index_that_waits_for_a_transaction_without_end_is_refused(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 1)
    directory = _write(tmp_path / "m", ONE)
    await migrate(empty_database.owner, "runtime", directory)
    writer = await asyncpg.connect(empty_database.runtime)
    async with writer.transaction():
        await writer.execute("INSERT INTO runtime.first VALUES (1)")
        refused = await _refused(empty_database.owner, _write(directory, ONE, INDEX))
        assert "0002_index.sql waited 1 s for a transaction" in refused
    await writer.close()
    assert await migrate(empty_database.owner, "runtime", directory) == [INDEX[0]]


async def test_many_at_once_build_an_index_once(empty_database: Database, tmp_path: Path) -> None:
    """Those that wait for their turn run no statement meanwhile: the build would wait for it, and it for the build."""
    directory = _write(tmp_path / "m", ONE, INDEX)
    applied = await asyncio.gather(*(migrate(empty_database.owner, "runtime", directory) for _ in range(5)))
    assert sorted(name for names in applied for name in names) == [ONE[0], INDEX[0]]


@pytest.mark.parametrize(
    "sql",
    [
        f"{INDEX[1]}CREATE TABLE runtime.other (n int)",
        "CREATE INDEX CONCURRENTLY first_n ON runtime.first (n)",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS first_n ON first (n)",
        "DROP INDEX CONCURRENTLY runtime.first_n",
        "REINDEX INDEX CONCURRENTLY runtime.first_n",
    ],
)
def test_a_file_with_a_statement_outside_of_a_transaction_has_only_that_one(tmp_path: Path, sql: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_directory(_write(tmp_path / "m", ("0001_index.sql", sql)))
    assert "0001_index.sql has more than one statement, or one that can't be tried again" in caught.value.message


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["0002_second.sql"], "0002_second.sql stands where number 0001 should"),
        (["0001_first.sql", "0003_third.sql"], "0003_third.sql stands where number 0002 should"),
        (["0001_first.sql", "0001_other.sql"], "0001_other.sql stands where number 0002 should"),
        (["1_first.sql"], "1_first.sql is not named like"),
        (["0001_First.sql"], "0001_First.sql is not named like"),
        ([], "holds no migrations; name the one of the service that does"),
    ],
    ids=str,
)
def test_files_are_numbered_without_a_hole(tmp_path: Path, names: list[str], complaint: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_directory(_write(tmp_path / "m", *((name, "") for name in names)))
    assert complaint in caught.value.message


async def test_a_service_checks_its_schema_with_its_own_role(empty_database: Database, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", ONE)
    with pytest.raises(Refusal) as caught:
        await check(empty_database.runtime, "runtime", directory)
    assert "lacks 0001_first.sql; run `oa admin migrate up` first" in caught.value.message
    await migrate(empty_database.owner, "runtime", directory)
    await check(empty_database.runtime, "runtime", directory)
    settings = DatabaseSettings(url=Secret(empty_database.runtime), check_migrations=False)
    _write(directory, ONE, TWO)
    await check_schema(settings, "runtime", directory)


async def test_a_service_cannot_change_its_history(empty_database: Database, tmp_path: Path) -> None:
    await migrate(empty_database.owner, "runtime", _write(tmp_path / "m", ONE))
    with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
        await _fetchval(empty_database.runtime, "DELETE FROM oa_migrations.applied")


async def test_a_migrator_does_not_wait_for_ever(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 1)
    connection = await asyncpg.connect(empty_database.owner)
    await connection.execute("SELECT pg_advisory_lock($1)", module._LOCK_KEY)
    assert "another process has been migrating" in await _refused(empty_database.owner, _write(tmp_path / "m", ONE))
    await connection.close()


async def test_a_database_that_is_away_is_named_without_password(tmp_path: Path) -> None:
    dsn = f"postgresql://me:geheim@127.0.0.1:{free_port()}/x"
    with pytest.raises(Refusal) as caught:
        await migrate(dsn, "runtime", _write(tmp_path / "m", ONE), start_timeout_s=0.1)
    assert caught.value.reason == "unavailable"
    assert "geheim" not in str(caught.value)


def _command(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, module.URL_VARIABLE: url, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [PYTHON, "-m", "oa_platform.postgres.migrate", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def test_the_command_applies_once_and_refuses_a_changed_file(empty_database: Database, tmp_path: Path) -> None:
    directory = str(_write(tmp_path / "m", ONE))
    first = _command("runtime", directory, url=empty_database.owner)
    assert (first.returncode, first.stdout) == (0, "applied 0001_first.sql\n")
    assert _command("runtime", directory, url=empty_database.owner).stdout == "up to date\n"
    _write(tmp_path / "m", ("0001_first.sql", "other"))
    refused = _command("runtime", directory, url=empty_database.owner)
    assert refused.returncode == 2
    assert refused.stderr.startswith("migration_refused: 0001_first.sql was changed")
    elsewhere = _command("runtime", str(tmp_path / "other"), url=empty_database.owner)
    assert (elsewhere.returncode, elsewhere.stdout) == (2, "")
    no_url = _command("runtime", directory, url="")
    assert (no_url.returncode, no_url.stderr[:15]) == (2, "invalid_setting")
    assert _command("runtime", url=empty_database.owner).returncode == 2
