"""Invariant 2: no plane reads or writes another's data, because Postgres refuses. Proved by trying."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest
import pytest_asyncio

from oa_platform.postgres.planes import PLANES, ROLES, Plane
from oa_testing.postgres import Database, Databases, ServerAddress

FOREIGN = [(own, other) for own in PLANES for other in PLANES if own is not other]


async def _make_tables(database: Database) -> None:
    """A table, a sequence and a function in every plane, made as migrations make them."""
    owner = await asyncpg.connect(database.owner)
    for plane in PLANES:
        await owner.execute(f"CREATE TABLE {plane.schema}.things (id bigserial PRIMARY KEY, x int)")
        await owner.execute(f"INSERT INTO {plane.schema}.things (x) VALUES (1)")  # noqa: S608 - names are our constants
        await owner.execute(f"CREATE FUNCTION {plane.schema}.answer() RETURNS int LANGUAGE sql AS 'SELECT 42'")
    await owner.close()


@pytest.fixture(scope="module")
def of_the_module(databases: Databases) -> Iterator[Database]:
    """A database with roles and schemas."""
    database = databases.create(())
    yield database
    databases.drop(database)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planes(of_the_module: Database) -> Database:
    """A database with tables in every plane, for all attempts that are refused: they leave it as it is."""
    await _make_tables(of_the_module)
    return of_the_module


@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.service)
async def test_a_role_works_in_its_own_schema(empty_database: Database, plane: Plane) -> None:
    await _make_tables(empty_database)
    connection = await asyncpg.connect(empty_database.dsn(plane.role))
    await connection.execute("INSERT INTO things (x) VALUES (2)")  # its search_path is its schema
    await connection.execute(f"UPDATE {plane.schema}.things SET x = x + 1")  # noqa: S608
    assert await connection.fetchval("SELECT sum(x) FROM things") == 5
    assert await connection.fetchval("SELECT answer()") == 42
    await connection.execute("DELETE FROM things")
    await connection.close()


@pytest.mark.parametrize(("own", "other"), FOREIGN, ids=lambda plane: plane.service)
@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT * FROM {schema}.things",
        "INSERT INTO {schema}.things (x) VALUES (3)",
        "UPDATE {schema}.things SET x = 0",
        "DELETE FROM {schema}.things",
        "TRUNCATE {schema}.things",
        "DROP TABLE {schema}.things",
        "SELECT nextval('{schema}.things_id_seq')",
        "SELECT {schema}.answer()",
        "CREATE TABLE {schema}.mine (x int)",
        "SELECT * FROM things JOIN {schema}.things AS foreign_things USING (id)",
        "SET ROLE {role}",
        "GRANT {role} TO CURRENT_USER",
        "ALTER ROLE {role} PASSWORD 'mine now'",
    ],
)
async def test_no_role_crosses_into_another_plane(planes: Database, own: Plane, other: Plane, attempt: str) -> None:
    connection = await asyncpg.connect(planes.dsn(own.role))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(attempt.format(schema=other.schema, role=other.role))
    await connection.close()


@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.service)
@pytest.mark.parametrize(
    "attempt",
    [
        "CREATE TABLE mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE TABLE mine AS SELECT * FROM things",
        "CREATE VIEW mine AS SELECT 1 AS x",
        "CREATE SEQUENCE mine",
        "CREATE TYPE mine AS (x int)",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE INDEX mine ON things (x)",
        "CREATE RULE mine AS ON DELETE TO things DO INSTEAD NOTHING",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine (x int)",
        "DROP TABLE things",
        "TRUNCATE things",
        "ALTER TABLE things ADD COLUMN y int",
        "ALTER TABLE things OWNER TO CURRENT_USER",
        "COMMENT ON TABLE things IS 'mine'",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'mine')",
    ],
)
async def test_a_role_changes_no_structure(planes: Database, plane: Plane, attempt: str) -> None:
    connection = await asyncpg.connect(planes.dsn(plane.role))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(attempt)
    await connection.close()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "attempt",
    [
        "SET SESSION AUTHORIZATION postgres",
        "SET ROLE postgres",
        "SET ROLE pg_read_all_data",
        "GRANT pg_write_all_data TO CURRENT_USER",
        "ALTER ROLE CURRENT_USER SUPERUSER",
        "ALTER ROLE CURRENT_USER CREATEROLE CREATEDB",
        "ALTER ROLE CURRENT_USER REPLICATION",
        "ALTER ROLE CURRENT_USER BYPASSRLS",
        "ALTER ROLE postgres PASSWORD 'mine now'",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_read_file('postgresql.conf')",
        "SELECT * FROM pg_ls_dir('.')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/mine'",
        "ALTER SYSTEM SET fsync = off",
        "SET fsync = off",
        "SELECT pg_reload_conf()",
        "SELECT lo_import('/etc/passwd')",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE c AS 'mine'",
        "SELECT pg_create_physical_replication_slot('mine')",
    ],
)
async def test_no_role_has_power_over_the_server(planes: Database, role: str, attempt: str) -> None:
    connection = await asyncpg.connect(planes.dsn(role))
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.CantChangeRuntimeParamError)):
        await connection.execute(attempt)
    await connection.close()


@pytest.mark.parametrize("role", ROLES)
async def test_no_role_becomes_another(planes: Database, role: str) -> None:
    connection = await asyncpg.connect(planes.dsn(role))
    for other in ROLES:
        if other != role:
            for attempt in (f"SET ROLE {other}", f"SET SESSION AUTHORIZATION {other}", f"GRANT {other} TO {role}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(attempt)
    await connection.close()


_QUERY_OF = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid = $1"


@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.service)
async def test_a_role_sees_and_ends_no_session_of_another(empty_database: Database, plane: Plane) -> None:
    owner = await asyncpg.connect(empty_database.owner)
    connection = await asyncpg.connect(empty_database.dsn(plane.role))
    seen = await connection.fetchval(_QUERY_OF, owner.get_server_pid())
    assert seen == "<insufficient privilege>"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("SELECT pg_terminate_backend($1)", owner.get_server_pid())
    await connection.close()
    await owner.close()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("database", ["postgres", "template1"])
async def test_roles_enter_no_other_database(postgres_address: ServerAddress, database: str, role: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(Database(database, postgres_address.port, postgres_address.passwords).dsn(role))
