"""Databases with the services' own migrations, and the grants that come with them."""

from __future__ import annotations

import asyncpg
import pytest

from oa_platform.postgres.planes import PLANES
from oa_testing.postgres import Database

TABLES_OF = """
    SELECT table_schema, count(*) AS tables FROM information_schema.tables
    WHERE table_schema IN ('control', 'runtime', 'projection') GROUP BY 1
"""


async def _tables(database: Database) -> dict[str, int]:
    connection = await asyncpg.connect(database.admin)
    rows = await connection.fetch(TABLES_OF)
    await connection.close()
    return {row["table_schema"]: row["tables"] for row in rows}


async def test_a_database_has_every_services_tables(database: Database) -> None:
    assert set(await _tables(database)) == {plane.schema for plane in PLANES}


async def test_a_services_database_has_its_tables_only(
    control_database: Database, runtime_database: Database, projector_database: Database
) -> None:
    assert set(await _tables(control_database)) == {"control"}
    assert set(await _tables(runtime_database)) == {"runtime"}
    assert set(await _tables(projector_database)) == {"projection"}


async def test_real_tables_are_closed_to_other_planes(database: Database) -> None:
    """Invariant 2 on what the services really have, table by table."""
    admin = await asyncpg.connect(database.admin)
    tables = await admin.fetch(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('control', 'runtime', 'projection')"
    )
    await admin.close()
    assert tables
    for plane in PLANES:
        connection = await asyncpg.connect(database.dsn(plane.role))
        for schema, table in tables:
            if schema != plane.schema:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f'SELECT FROM "{schema}"."{table}"')
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f'DELETE FROM "{schema}"."{table}"')  # noqa: S608 - from the catalogue
        await connection.close()
