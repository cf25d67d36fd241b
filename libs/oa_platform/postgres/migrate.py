"""Migrations in plain SQL: `NNNN_name.sql`, applied in order, once, by one process at a time.

    python -m oa_platform.postgres.migrate runtime services/runtime/migrations     # with OA_MIGRATE_DATABASE_URL

Applied files are recorded, with a checksum, in `oa_migrations.applied`. A file that was changed after it was applied,
or that comes before one that was applied, is refused (migration_refused): the schema of an installation is the sum of
its files, so files are only ever added. Each file runs in a transaction of its own, except for one that builds or drops
an index of a table in use. Such a file is that one statement:

    CREATE INDEX CONCURRENTLY IF NOT EXISTS runs_by_color ON runtime.runs (color);

It runs outside of a transaction, and the table is written meanwhile. If it is interrupted, it leaves an invalid index,
which the next try drops before it begins again.

Releases overlap while an installation is upgraded, so a schema changes in two steps. Migrations *expand*: the code of
the previous release still works on the schema that they leave. Changes that take something away wait for the second
step, in files named `NNNN_contract_….sql`. These are applied with `--contract`, once nothing of the previous release
runs any more. Until then the previous release may come back, and finds nothing to apply; after that it is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from oa_base.refusal import Refusal
from oa_base.visible import LAYOUT, visible
from oa_platform.config.loading import load, setting
from oa_platform.config.parsers import Secret, number, postgres_url
from oa_platform.postgres.servers import BROKEN, UNLIMITED, OnWait, Target, connect, may_heal

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

URL_VARIABLE = "OA_MIGRATE_DATABASE_URL"
CONNECT_TIMEOUT_S = 10.0
START_TIMEOUT_S = 15.0
"""Maximum wait for a database that is not there yet."""
LOCK_TIMEOUT_S = 60
"""Maximum wait for another process that migrates the same database, for the locks of a migration's statements, and for
each transaction that an index which is built concurrently has to wait for."""
STATEMENT_LOCK_TIMEOUT_MS = 2_000
"""Maximum wait of one statement for its lock. Later statements on the same table wait behind it meanwhile."""
RETRY_PAUSE_S = 1.0
"""Pause before a migration that did not get its locks is tried again."""
_NO_LOCK = (asyncpg.exceptions.LockNotAvailableError, asyncpg.exceptions.DeadlockDetectedError)
"""Errors of a migration whose locks somebody else has, or who also waits for one of the migration's own."""
_LOCK_KEY = 0x0A_9E_17_5D
_CONCURRENTLY = re.compile(r"\bINDEX\s+CONCURRENTLY\b", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*")
_ALONE = re.compile(
    r"\s*(?:CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+(?P<index>[a-z_0-9]+)"
    r"\s+ON\s+(?P<schema>[a-z_]+)\.[^;]+"
    r"|DROP\s+INDEX\s+CONCURRENTLY\s+IF\s+EXISTS\s+[a-z_0-9.]+\s*);?\s*",
    re.IGNORECASE,
)
"""The only statement of a file that is not applied in a transaction. It can be tried again, whatever became of it."""
_FILE_NAME = re.compile(r"(?P<number>[0-9]{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, kw_only=True)
class MigrateSettings:
    """The settings that `python -m oa_platform.postgres.migrate` reads."""

    url: Secret = setting(
        URL_VARIABLE,
        postgres_url(),
        doc="URL of the database, with the role that owns the schemas. No service uses it.",
    )
    start_timeout_s: float = setting(
        "OA_DATABASE_START_TIMEOUT_S", number(0, 600), START_TIMEOUT_S, doc="Maximum time to wait for the database."
    )


_CREATE_RECORD = """
CREATE SCHEMA IF NOT EXISTS oa_migrations;
GRANT USAGE ON SCHEMA oa_migrations TO PUBLIC;
CREATE TABLE IF NOT EXISTS oa_migrations.applied (
  service text NOT NULL,
  number integer NOT NULL,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (service, number)
);
GRANT SELECT ON oa_migrations.applied TO PUBLIC;
"""
"""Makes the record, in the one transaction that isn't a migration. Everybody may read the record: a service checks at
its start that its schema is the one it was written for."""
_SELECT_APPLIED = "SELECT number, name, checksum FROM oa_migrations.applied WHERE service = $1 ORDER BY number"
"""The migrations of a service that were applied."""
_INSERT_APPLIED = "INSERT INTO oa_migrations.applied (service, number, name, checksum) VALUES ($1, $2, $3, $4)"
"""Notes a migration as applied."""
_LOCK_ALL = "SELECT pg_try_advisory_lock($1)"
"""Locks out other processes that migrate, unless one is at it. It does not wait: an index that is built concurrently
waits for every statement that runs, so it would wait for one that waits for its migration."""
_INVALID = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid)
"""
"""Whether there is an index that was not built to its end."""
_DROP = "DROP INDEX CONCURRENTLY IF EXISTS {index}"
"""Removes an index; its name is the one of a file, in small letters, digits and underscores."""
_SET_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', $1, false)"
"""Sets how long each statement waits for a lock from here on."""


@dataclass(frozen=True)
class Migration:
    """One file, or the record of one (whose `sql` is empty)."""

    number: int
    name: str
    checksum: str
    sql: str = ""

    @property
    def contracts(self) -> bool:
        """Whether it takes away something that the previous release needs."""
        return self.name[len("0000_") :].startswith("contract_")

    @property
    def is_concurrent(self) -> bool:
        """Whether it is applied outside of a transaction, while its table is written."""
        return _CONCURRENTLY.search(self.statements) is not None

    @property
    def statements(self) -> str:
        """The SQL without its comments."""
        return _COMMENT.sub("", self.sql)


def read_directory(directory: Path) -> list[Migration]:
    """The migrations in `directory`, numbered 1, 2, 3, …; Refusal(migration_refused) for anything else in there."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if not match:
            raise _refused(f"{path.name} is not named like 0001_what_it_does.sql; rename it")
        data = path.read_bytes()
        migration = Migration(int(match["number"]), path.name, hashlib.sha256(data).hexdigest(), data.decode())
        if migration.is_concurrent and not _ALONE.fullmatch(migration.statements):
            raise _refused(
                f"{path.name} has more than one statement, or one that can't be tried again; a file with INDEX "
                "CONCURRENTLY is one CREATE INDEX CONCURRENTLY IF NOT EXISTS, or one DROP INDEX CONCURRENTLY IF EXISTS"
            )
        found.append(migration)
    if not found:
        raise _refused(f"{directory} holds no migrations; name the one of the service that does")
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise _refused(f"{migration.name} stands where number {expected:04} should; renumber it")
    return found


def pending(files: Sequence[Migration], applied: Sequence[Migration]) -> list[Migration]:
    """The files still to be applied, in order; Refusal(migration_refused) when files and record disagree.

    A record may go on beyond the files, as long as it only expands: a newer release was here, and this one is back.
    """
    by_number: Mapping[int, Migration] = {file.number: file for file in files}
    for record in applied:
        file = by_number.get(record.number)
        if file is None:
            if not record.contracts:
                continue
            raise _refused(
                f"{record.name} was applied to this database, but is not among the files; deploy the code that has it"
            )
        if file.name != record.name or file.checksum != record.checksum:
            raise _refused(f"{file.name} was changed after it was applied; restore it and write a new migration")
    highest = max((record.number for record in applied), default=0)
    if highest != len(applied):
        raise _refused(f"the database has {highest:04} without all before it; restore the record of migrations")
    return [file for file in files if file.number > highest]


def steps(files: Sequence[Migration], applied: Sequence[Migration], *, contract: bool) -> list[Migration]:
    """The files to apply now: all that are pending, or those before the first file that contracts.

    A database without migrations has no previous release, so all files are applied. Raises Refusal(migration_refused)
    when a file that expands waits behind a file that contracts, because then a release was left out.
    """
    todo = pending(files, applied)
    if contract or not applied:
        return todo
    now = list(takewhile(lambda file: not file.contracts, todo))
    behind = next((file.name for file in todo[len(now) :] if not file.contracts), None)
    if behind is not None:
        name = todo[len(now)].name
        raise _refused(f"{behind} waits behind {name}; when nothing of the release before runs, apply it: --contract")
    return now


async def migrate(
    dsn: str, service: str, directory: Path, start_timeout_s: float = START_TIMEOUT_S, *, contract: bool = False
) -> list[str]:
    """Apply the pending files (`steps`) and return the names of those applied now.

    `dsn` signs in as the owner of the schemas. Waits for the database. Raises Refusal(migration_refused),
    Refusal(unavailable), Refusal(invalid_setting).
    """
    files = read_directory(directory)
    connection = await _connect(dsn, URL_VARIABLE, start_timeout_s)
    names: list[str] = []
    try:
        await _lock(connection)
        async with connection.transaction():
            await connection.execute(_CREATE_RECORD)
        for migration in steps(files, await _applied(connection, service), contract=contract):
            await _apply(connection, service, migration)
            names.append(migration.name)
    except BROKEN as error:
        if not (connection.is_closed() or may_heal(error)):
            raise
        message = (
            f"the connection ended ({type(error).__name__}); a migration is stored whole or begun again: try again"
        )
        raise Refusal("unavailable", message, field=URL_VARIABLE) from error
    finally:
        await connection.close()
    return names


async def check(
    dsn: str,
    service: str,
    directory: Path,
    start_timeout_s: float = START_TIMEOUT_S,
    variable: str = "OA_DATABASE_URL",
    on_wait: OnWait | None = None,
) -> None:
    """Raise Refusal(migration_refused) unless the database has all migrations in `directory` that expand.

    It may also have those of a newer release, as long as they take nothing away. `on_wait`: see `servers.patiently`.
    """
    files = read_directory(directory)
    applied = await read_applied(dsn, service, start_timeout_s, variable, on_wait)
    missing = [file for file in pending(files, applied) if not file.contracts]
    if missing:
        raise _refused(
            f"the database lacks {', '.join(file.name for file in missing)}; run `oa admin migrate up` first"
        )


async def read_applied(
    dsn: str,
    service: str,
    start_timeout_s: float = START_TIMEOUT_S,
    variable: str = URL_VARIABLE,
    on_wait: OnWait | None = None,
) -> list[Migration]:
    """The record of the applied migrations, in order; messages call the DSN `variable`. Raises Refusal(unavailable)."""
    connection = await _connect(dsn, variable, start_timeout_s, on_wait)
    try:
        return await _applied(connection, service)
    except asyncpg.exceptions.UndefinedTableError:
        return []
    finally:
        await connection.close()


async def _connect(dsn: str, variable: str, start_timeout_s: float, on_wait: OnWait | None = None) -> Connection:
    # Nothing that is acknowledged here can be lost unnoticed: a service checks at its start what was applied.
    return await connect(
        Target(dsn, CONNECT_TIMEOUT_S, True, {"server_settings": UNLIMITED}), start_timeout_s, variable, on_wait
    )


async def _lock(connection: Connection) -> None:
    """Wait until nobody else migrates. The lock ends with the connection."""
    deadline_s = time.monotonic() + LOCK_TIMEOUT_S
    while not await connection.fetchval(_LOCK_ALL, _LOCK_KEY):
        if time.monotonic() > deadline_s:
            raise _refused(f"another process has been migrating for more than {LOCK_TIMEOUT_S} s; try again")
        await asyncio.sleep(RETRY_PAUSE_S)


async def _applied(connection: Connection, service: str) -> list[Migration]:
    rows = await connection.fetch(_SELECT_APPLIED, service)
    return [Migration(row["number"], row["name"], row["checksum"]) for row in rows]


async def _apply(connection: Connection, service: str, migration: Migration) -> None:
    """Apply one file."""
    if migration.is_concurrent:
        await _apply_concurrently(connection, service, migration)
        return
    # It waits for its locks a little at a time, so that nobody else waits behind it for long.
    await connection.execute(_SET_LOCK_TIMEOUT, f"{STATEMENT_LOCK_TIMEOUT_MS}ms")
    deadline_s = time.monotonic() + LOCK_TIMEOUT_S
    while not await _applied_now(connection, service, migration):
        if time.monotonic() > deadline_s:
            message = (
                f"{migration.name} got no lock in {LOCK_TIMEOUT_S} s; find who holds it in pg_locks, and try again"
            )
            raise _refused(message)
        await asyncio.sleep(RETRY_PAUSE_S)


async def _apply_concurrently(connection: Connection, service: str, migration: Migration) -> None:
    """Apply a file whose statement can't be in a transaction. Readers and writers don't wait behind its locks."""
    await connection.execute(_SET_LOCK_TIMEOUT, f"{LOCK_TIMEOUT_S}s")
    try:
        alone = _ALONE.fullmatch(migration.statements)
        assert alone is not None  # read_directory saw to it
        index = f"{alone['schema']}.{alone['index']}"
        if await connection.fetchval(_INVALID, index):
            await connection.execute(_DROP.format(index=index))
        await connection.execute(migration.sql)
    except _NO_LOCK:
        message = (
            f"{migration.name} waited {LOCK_TIMEOUT_S} s for a transaction that has not ended; find the oldest one in "
            "pg_stat_activity, and try again"
        )
        raise _refused(message) from None
    except asyncpg.PostgresError as error:
        if connection.is_closed() or may_heal(error):
            raise
        raise _refused(f"{migration.name} can't be applied ({error}); mend it, and try again") from error
    await connection.execute(_INSERT_APPLIED, service, migration.number, migration.name, migration.checksum)


async def _applied_now(connection: Connection, service: str, migration: Migration) -> bool:
    """Try it once; False when something else holds a lock that it needs."""
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(_INSERT_APPLIED, service, migration.number, migration.name, migration.checksum)
        return True
    except _NO_LOCK:
        return False
    except asyncpg.PostgresError as error:
        if connection.is_closed() or may_heal(error):
            raise
        raise _refused(
            f"{migration.name} can't be applied ({error}); nothing of it was stored: mend it, and try again"
        ) from error


def _refused(message: str) -> Refusal:
    return Refusal("migration_refused", message)


def main(arguments: Sequence[str]) -> int:
    """`python -m oa_platform.postgres.migrate [--contract] SERVICE DIRECTORY`: 0 when it is done, 2 when refused."""
    contract, arguments = arguments[:1] == ["--contract"], [one for one in arguments if one != "--contract"]
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m oa_platform.postgres.migrate [--contract] SERVICE DIRECTORY\n")
        return 2
    try:
        settings = load(MigrateSettings, os.environ)
        url, directory = settings.url.reveal(), Path(arguments[1])
        names = asyncio.run(migrate(url, arguments[0], directory, settings.start_timeout_s, contract=contract))
    except Refusal as refusal:
        sys.stderr.write(f"{visible(str(refusal), LAYOUT)}\n")
        return 2
    sys.stdout.write("".join(f"applied {name}\n" for name in names) or "up to date\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
