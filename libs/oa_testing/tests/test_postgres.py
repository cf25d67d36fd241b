"""Each test gets a database that no other test has touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from oa_testing.postgres import Database

if TYPE_CHECKING:
    from oa_testing.postgres import Databases


@pytest.mark.parametrize("_repetition", [1, 2])
async def test_a_database_is_fresh(empty_database: Database, _repetition: int) -> None:
    owner = await asyncpg.connect(empty_database.owner)
    await owner.execute("CREATE TABLE runtime.seen (x int)")  # fails the second time unless the database is new
    await owner.close()
    app = await asyncpg.connect(empty_database.runtime)
    await app.execute("INSERT INTO seen VALUES (1)")
    await app.close()


def test_a_plain_test_can_have_one_too(empty_database: Database) -> None:
    assert empty_database.name in empty_database.owner
    assert empty_database.passwords["oa_owner"] not in repr(empty_database)


def test_dropping_ends_forgotten_connections(databases: Databases) -> None:
    database = databases.create(())

    async def forget() -> asyncpg.Connection:
        return await asyncpg.connect(database.control)

    forgotten = databases._run(forget())
    databases.drop(database)
    with pytest.raises(asyncpg.PostgresError):
        databases._run(forget())
    forgotten.terminate()
