"""Invariant 2: no plane reads or writes another's data, because Postgres refuses. Proved by trying."""

from __future__ import annotations

import asyncpg
import pytest

from oa_platform.postgres.planes import OWNER, PLANES, Plane
from oa_testing.postgres import Database, ServerAddress

FOREIGN = [(own, other) for own in PLANES for other in PLANES if own is not other]


async def _make_tables(database: Database) -> None:
    """A table, a sequence and a function in every plane, made as migrations make them."""
    owner = await asyncpg.connect(database.owner)
    for plane in PLANES:
        await owner.execute(f"CREATE TABLE {plane.schema}.things (id bigserial PRIMARY KEY, x int)")
        await owner.execute(f"INSERT INTO {plane.schema}.things (x) VALUES (1)")  # noqa: S608 - names are our constants
        await owner.execute(f"CREATE FUNCTION {plane.schema}.answer() RETURNS int LANGUAGE sql AS 'SELECT 42'")
    await owner.close()


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
async def test_no_role_crosses_into_another_plane(
    empty_database: Database, own: Plane, other: Plane, attempt: str
) -> None:
    await _make_tables(empty_database)
    connection = await asyncpg.connect(empty_database.dsn(own.role))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(attempt.format(schema=other.schema, role=other.role))
    await connection.close()


@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.service)
@pytest.mark.parametrize(
    "attempt",
    [
        "CREATE TABLE mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine (x int)",
        "DROP TABLE things",
        "TRUNCATE things",
        "ALTER TABLE things ADD COLUMN y int",
        "SELECT * FROM pg_authid",
        "COPY things TO PROGRAM 'true'",
        f"SET ROLE {OWNER}",
    ],
)
async def test_a_role_changes_no_structure(empty_database: Database, plane: Plane, attempt: str) -> None:
    await _make_tables(empty_database)
    connection = await asyncpg.connect(empty_database.dsn(plane.role))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(attempt)
    await connection.close()


@pytest.mark.parametrize("database", ["postgres", "template1"])
async def test_roles_enter_no_other_database(postgres_address: ServerAddress, database: str) -> None:
    for plane in PLANES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(Database(database, postgres_address.port, postgres_address.passwords).dsn(plane.role))
