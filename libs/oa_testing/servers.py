"""Database servers of a test's own, with roles and migrations: one that keeps what it acknowledges, and a standby."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from oa_localstack.postgres.binaries import find_binaries
from oa_localstack.postgres.server import SUPERUSER, PostgresServer
from oa_platform.postgres import preparation
from oa_platform.postgres.planes import DATABASE, ROLES
from oa_testing.postgres import FAST, Database, free_port

DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
CHANGEABLE = {name: value for name, value in FAST.items() if name not in DURABILITY}
"""Without what a start fixes: the tests change it while the server runs."""
REPLICATING = {**FAST, "wal_level": "replica", "max_wal_senders": "5"}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it."""
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def database_server(
    root: Path, settings: dict[str, str], service: str
) -> AsyncIterator[tuple[PostgresServer, Database]]:
    """A running server with the schema of a service."""
    passwords = {role: secrets.token_urlsafe(16) for role in (SUPERUSER, *ROLES)}
    server = PostgresServer(root / "one", free_port(), passwords[SUPERUSER], root / "one.log", settings)
    await server.start()
    try:
        await preparation.prepare(server.dsn(), passwords)
        database = Database(DATABASE, server.port, passwords)
        await preparation.migrate_service(database.owner, service)
        yield server, database
    finally:
        await server.stop()


@asynccontextmanager
async def synchronous_standby(primary: PostgresServer, root: Path) -> AsyncIterator[PostgresServer]:
    """A running hot standby without which the primary acknowledges nothing."""
    standby = await base_backup(primary, root)
    await standby.start()
    try:
        async with preparation.admin_connection(primary.dsn()) as admin:
            await admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await admin.execute("SELECT pg_reload_conf()")
            await until(lambda: _is_synchronous(admin))
        yield standby
    finally:
        await standby.stop()


async def base_backup(primary: PostgresServer, root: Path) -> PostgresServer:
    """A copy of a running server, not started: a standby that has not got what the primary stores from now on."""
    standby = PostgresServer(
        root / "two", free_port(), primary.superuser_password, root / "two.log", REPLICATING, primary.account
    )
    standby.root.mkdir(mode=0o700)
    standby.account.take(standby.root)
    place = ["--host=127.0.0.1", f"--port={primary.port}", f"--username={SUPERUSER}", f"--pgdata={standby.data}"]
    how = ["--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--no-sync"]
    await _program(primary, "pg_basebackup", *place, *how)
    return standby


async def promote(standby: PostgresServer) -> None:
    """Make a standby the primary."""
    connection = await asyncpg.connect(standby.dsn())
    try:
        assert await connection.fetchval("SELECT pg_promote()")
    finally:
        await connection.close()


async def dump(server: PostgresServer, owner: str, schema: str) -> Path:
    """Make a dump of a schema."""
    made = server.root / f"{schema}.dump"
    await _program(server, "pg_dump", f"--dbname={owner}", "--format=custom", f"--schema={schema}", f"--file={made}")
    return made


async def restore(server: PostgresServer, owner: str, made: Path) -> None:
    """Put a dump into the place of what there is, as docs/operations/control.md says."""
    how = ("--clean", "--if-exists", "--single-transaction")
    await _program(server, "pg_restore", f"--dbname={owner}", *how, str(made))


def both(dsn: str, primary: PostgresServer, standby: PostgresServer) -> str:
    """`dsn`, which has the primary, with both servers."""
    address = f"127.0.0.1:{primary.port}"
    return dsn.replace(address, f"{address},127.0.0.1:{standby.port}")


async def _program(server: PostgresServer, name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs."""
    program = find_binaries(server.account) / name
    env = {"PATH": os.defpath, "LC_ALL": "C", "PGPASSWORD": server.superuser_password}
    done = await asyncio.to_thread(server.account.run, [str(program), *arguments], env)
    assert done.returncode == 0, done.stdout


async def _is_synchronous(admin: asyncpg.Connection[asyncpg.Record]) -> bool:
    states = await admin.fetch("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'")
    return [row["sync_state"] for row in states] == ["sync"]
