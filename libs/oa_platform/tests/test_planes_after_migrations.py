"""What the roles may do in a database with all migrations: asked of the catalogue, so that no object is left out."""

from __future__ import annotations

import asyncpg
import pytest

from oa_platform.postgres.planes import OWNER, PLANES, ROLES, Plane
from oa_testing.postgres import Database

_SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname NOT IN ('pg_catalog', 'information_schema')
  AND (has_schema_privilege($1, oid, 'USAGE') OR has_schema_privilege($1, oid, 'CREATE'))
"""
_CREATES_IN = "SELECT nspname FROM pg_namespace WHERE has_schema_privilege($1, oid, 'CREATE')"
_RELATIONS = """
SELECT c.oid::regclass::text AS name, kind AS may
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS kind
WHERE n.nspname = $2 AND c.relkind IN ('r', 'p', 'v', 'm') AND has_table_privilege($1, c.oid, kind)
"""
_DEFINERS = """
SELECT p.oid::regprocedure::text AS name, p.proconfig AS settings, has_function_privilege('public', p.oid, 'EXECUTE')
    AS everybody
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""
_MEMBERS = "SELECT count(*) FROM pg_auth_members WHERE member = ANY ($1::text[]::regrole[]::oid[])"
_OWNED = "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) = $1"
_BEYOND = ("TRUNCATE", "REFERENCES", "TRIGGER")
"""What no service needs of a table: emptying it unseen, and hanging things of its own on it."""
_RECORD_CHANGES = [
    "INSERT INTO oa_migrations.applied (service, number, name, checksum) VALUES ('runtime', 99, 'x', 'x')",
    "UPDATE oa_migrations.applied SET checksum = 'x'",
    "DELETE FROM oa_migrations.applied",
    "TRUNCATE oa_migrations.applied",
    "DROP TABLE oa_migrations.applied",
    "CREATE TABLE oa_migrations.mine (x int)",
]


async def _fetch(dsn: str, statement: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.service)
async def test_a_role_has_its_schema_and_the_record_of_migrations(database: Database, plane: Plane) -> None:
    schemas = {row[0] for row in await _fetch(database.admin, _SCHEMAS, plane.role)}
    assert schemas == {plane.schema, "oa_migrations"}
    assert await _fetch(database.admin, _CREATES_IN, plane.role) == []
    record = [tuple(row) for row in await _fetch(database.admin, _RELATIONS, plane.role, "oa_migrations")]
    assert record == [("oa_migrations.applied", "SELECT")]
    own = await _fetch(database.admin, _RELATIONS, plane.role, plane.schema)
    assert len(own) > 5, "it works with its tables"
    assert {row["may"] for row in own}.isdisjoint(_BEYOND)
    assert await _fetch(database.admin, _OWNED, plane.role) == []


@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.service)
async def test_a_role_only_reads_what_was_migrated(database: Database, plane: Plane) -> None:
    connection = await asyncpg.connect(database.dsn(plane.role))
    for statement in _RECORD_CHANGES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    assert await connection.fetchval("SELECT count(*) FROM oa_migrations.applied") > 3
    await connection.close()


async def test_no_role_may_act_as_another(database: Database) -> None:
    assert [row[0] for row in await _fetch(database.admin, _MEMBERS, list(ROLES))] == [0]


async def test_what_runs_with_the_owners_rights_names_its_schemas_and_is_not_for_everybody(database: Database) -> None:
    definers = await _fetch(database.admin, _DEFINERS)
    assert len(definers) >= 2
    for row in definers:
        assert any(setting.startswith("search_path=pg_catalog") for setting in row["settings"] or ()), row["name"]
        assert not row["everybody"], row["name"]


async def test_the_owner_owns_every_schema(database: Database) -> None:
    creates = {row[0] for row in await _fetch(database.admin, _CREATES_IN, OWNER)}
    assert creates >= {"oa_migrations", *(plane.schema for plane in PLANES)}
