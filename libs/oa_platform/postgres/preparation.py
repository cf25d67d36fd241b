"""Makes roles, databases and schemas (`oa_platform.postgres.planes`) on a running server, and migrates them."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from oa_base.refusal import Refusal
from oa_platform.postgres.migrate import migrate
from oa_platform.postgres.planes import (
    DATABASE,
    ROLES,
    creation,
    database_statements,
    password_statement,
    role_statements,
    schema_statements,
)
from oa_platform.postgres.servers import UNLIMITED, Target, connect

CONNECT_TIMEOUT_S = 10.0
START_TIMEOUT_S = 15.0
"""Maximum wait for a server that takes no connections yet, or none any more."""
_UNLOGGED = {
    **UNLIMITED,
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
}
"""Everything that makes a server log statements, or the arguments of statements, is off."""
_QUOTED = "SELECT quote_literal($1)"
"""Quotes a password for SQL, because ALTER ROLE takes no parameters."""
_EXISTS = "SELECT true FROM pg_database WHERE datname = $1"
"""Whether there is a database of this name."""


async def prepare(dsn: str, passwords: Mapping[str, str]) -> None:
    """Make the roles (role -> password), our database and its schemas; those that exist stay.

    `dsn` connects a superuser to the server. Raises Refusal unavailable, invalid_setting.
    """
    async with admin_connection(dsn) as admin:
        await prepare_cluster(admin, passwords)
        await _ensure_database(admin)
    async with admin_connection(urlunsplit(urlsplit(dsn)._replace(path=f"/{DATABASE}"))) as admin:
        await prepare_schemas(admin)


async def connect_admin(dsn: str) -> asyncpg.Connection:
    """A superuser's connection whose statements stay out of the server's log, because they may hold passwords.

    Raises Refusal unavailable, invalid_setting.
    """
    arguments = {"server_settings": _UNLOGGED, "statement_cache_size": 0}
    target = Target(dsn, CONNECT_TIMEOUT_S, True, arguments)
    return await connect(target, START_TIMEOUT_S)


@contextlib.asynccontextmanager
async def admin_connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """`connect_admin` for a block."""
    connection = await connect_admin(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def prepare_cluster(admin: asyncpg.Connection, passwords: Mapping[str, str]) -> None:
    """Create the login roles where they are missing, and give all of them these passwords (role name -> password)."""
    async with admin.transaction():
        await _run(admin, role_statements())
        for role in ROLES:
            literal = await admin.fetchval(_QUOTED, passwords[role])
            await admin.execute(password_statement(role, literal))


async def create_database(admin: asyncpg.Connection, name: str, template: str = "") -> None:
    """Create the database `name`, which only the owner and the planes' roles may enter.

    A template's tables and their grants are copied, but not the rights to connect, so these are granted again.
    """
    await admin.execute(creation(name, template))
    await _run(admin, database_statements(name))


async def _ensure_database(admin: asyncpg.Connection) -> None:
    """Create our database if there is none; either way, only the owner and the planes' roles may enter it."""
    if await admin.fetchval(_EXISTS, DATABASE):
        await _run(admin, database_statements(DATABASE))
    else:
        await create_database(admin, DATABASE)


async def prepare_schemas(admin: asyncpg.Connection) -> None:
    """Create each plane's schema in the connected database, with its grants. Idempotent."""
    async with admin.transaction():
        await _run(admin, schema_statements())


async def _run(admin: asyncpg.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        await admin.execute(statement)


async def migrate_service(dsn: str, service: str) -> None:
    """Bring a plane's schema up to date; `dsn` is the owner's. Raises Refusal(migration_refused)."""
    # On one machine, nothing of a previous release runs any more.
    await migrate(dsn, service, migrations_of(service), contract=True)


def migrations_of(service: str) -> Path:
    """The directory with the migrations of a service, wherever it is installed."""
    spec = importlib.util.find_spec(f"services.{service}")
    if spec is None or not spec.submodule_search_locations:
        message = f"the package services.{service} is not installed; install this project with its `stack` extra"
        raise Refusal("start_failed", message)
    return Path(next(iter(spec.submodule_search_locations))) / "migrations"
