"""What is in the database: one role and one schema per plane, and no way from one to another.

`oa_owner` owns the schemas and runs migrations. Each service that has data signs in with a role of its own, which
may use one schema and nothing else: invariant 2 ("no cross-plane write, no cross-plane join") holds because
Postgres refuses, whatever the code says.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from oa_base.refusal import Refusal
from oa_platform.postgres.migrate import migrate
from oa_platform.postgres.servers import Target, connect

OWNER = "oa_owner"
"""The role that migrations run as."""
DATABASE = "openagents"


@dataclass(frozen=True)
class Plane:
    """A service's place in the database."""

    service: str
    schema: str
    role: str


PLANES = (
    Plane("control", "control", "control_app"),
    Plane("runtime", "runtime", "runtime_app"),
    Plane("projector", "projection", "projector_app"),
)
ROLES = (OWNER, *(plane.role for plane in PLANES))


CONNECT_TIMEOUT_S = 10.0
START_TIMEOUT_S = 15.0
"""How long one waits for a server that takes no connection yet, or no more."""


async def connect_admin(dsn: str) -> asyncpg.Connection:
    """A superuser's connection whose failing statements stay out of the server's log: they may hold passwords.

    Raises Refusal unavailable, invalid_setting.
    """
    arguments = {"server_settings": {"log_min_error_statement": "panic"}, "statement_cache_size": 0}
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
    """Create the login roles, or give existing ones the present passwords (role name -> password)."""
    existing = {row["rolname"] for row in await admin.fetch("SELECT rolname FROM pg_roles")}
    for role in ROLES:
        verb = "ALTER" if role in existing else "CREATE"
        password = await admin.fetchval("SELECT quote_literal($1)", passwords[role])
        await admin.execute(
            f"{verb} ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
            f" PASSWORD {password}"
        )
    for plane in PLANES:
        await admin.execute(f"ALTER ROLE {plane.role} SET search_path = {plane.schema}")
    # Every database lets everybody in by default; these two hold nothing of ours.
    await admin.execute("REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC")


async def create_database(admin: asyncpg.Connection, name: str, template: str | None = None) -> None:
    """Create the database `name`, which only the owner and the planes' roles may enter.

    A template's tables and their grants are copied; who may connect is not, so it is said again.
    """
    # FILE_COPY: four times as quick as the default for a small template when fsync is off.
    source = f" TEMPLATE {_quoted(template)} STRATEGY FILE_COPY" if template else ""
    await admin.execute(f"CREATE DATABASE {_quoted(name)} OWNER {OWNER}{source}")
    roles = ", ".join(plane.role for plane in PLANES)
    await admin.execute(
        f"REVOKE CONNECT, TEMPORARY ON DATABASE {_quoted(name)} FROM PUBLIC;"
        f"GRANT CONNECT ON DATABASE {_quoted(name)} TO {roles}"
    )


async def ensure_database(admin: asyncpg.Connection, name: str) -> None:
    """Create the database `name` if there is none."""
    if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
        await create_database(admin, name)


async def prepare_schemas(admin: asyncpg.Connection) -> None:
    """Create each plane's schema in the connected database, with grants for what migrations will create in it.

    Idempotent. A migration may take rights away again (`REVOKE UPDATE ON runtime.events …`); these are the defaults.
    """
    async with admin.transaction():
        await admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        await admin.execute(f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} REVOKE EXECUTE ON ROUTINES FROM PUBLIC")
        for plane in PLANES:
            await admin.execute(f"CREATE SCHEMA IF NOT EXISTS {plane.schema} AUTHORIZATION {OWNER}")
            await admin.execute(f"GRANT USAGE ON SCHEMA {plane.schema} TO {plane.role}")
            for rights, kind in (
                ("SELECT, INSERT, UPDATE, DELETE", "TABLES"),
                ("USAGE, SELECT", "SEQUENCES"),
                ("EXECUTE", "ROUTINES"),
            ):
                await admin.execute(
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA {plane.schema} "
                    f"GRANT {rights} ON {kind} TO {plane.role}"
                )


async def migrate_service(dsn: str, service: str) -> None:
    """Bring a plane's schema up to date; `dsn` is the owner's. Raises Refusal(migration_refused)."""
    # On one machine nothing of a release before runs any more.
    await migrate(dsn, service, migrations_of(service), contract=True)


def migrations_of(service: str) -> Path:
    """The directory with the migrations of a service, wherever it is installed."""
    spec = importlib.util.find_spec(f"services.{service}")
    if spec is None or not spec.submodule_search_locations:
        message = f"the package services.{service} is not installed; install this project with its `stack` extra"
        raise Refusal("start_failed", message)
    return Path(next(iter(spec.submodule_search_locations))) / "migrations"


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
