"""What the database itself refuses: events and receipts can't be changed, by the service or by anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from oa_testing.postgres import Database
from services.runtime.tests.rig import FakeWorker, finish, replica, runtime_settings, somebody

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

CHANGES = [
    "UPDATE runtime.events SET body = ''",
    "UPDATE runtime.events SET seq = seq + 1",
    "DELETE FROM runtime.events",
    "TRUNCATE runtime.events CASCADE",
    "UPDATE runtime.receipts SET key_id = 'x'",
    "DELETE FROM runtime.receipts",
    "TRUNCATE runtime.receipts CASCADE",
]
FORBIDDEN_TO_THE_SERVICE = [
    *CHANGES,
    "DELETE FROM runtime.runs",
    "DELETE FROM runtime.log_heads",
    "INSERT INTO runtime.log_heads (partition) VALUES (99)",
    "UPDATE runtime.installation SET log_epoch = 'x'",
    "DELETE FROM runtime.receipt_keys",
    "UPDATE runtime.receipt_keys SET public_key = ''",
    "CREATE TABLE runtime.mine (x int)",
    "ALTER TABLE runtime.events DISABLE TRIGGER ALL",
    "DROP TRIGGER events_append_only ON runtime.events",
]


@pytest_asyncio.fixture
async def finished_run(runtime_database: Database) -> Database:
    """A database with one finished run."""
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        worker = FakeWorker(runtime, who)
        await worker.attach()
        run_id = (await runtime.create(who)).run_id
        await worker.next("assignment")
        await worker.append(run_id, 1, "end", finish())
    return runtime_database


@pytest_asyncio.fixture
async def service(finished_run: Database) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(finished_run.runtime)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def owner(finished_run: Database) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(finished_run.owner)
    yield connection
    await connection.close()


async def test_the_service_may_only_do_what_it_does(service: Connection) -> None:
    for statement in FORBIDDEN_TO_THE_SERVICE:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(statement)
    assert await service.fetchval("SELECT count(*) FROM runtime.events") == 3


async def test_not_even_the_owner_changes_what_was_recorded(owner: Connection) -> None:
    for statement in CHANGES:
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await owner.execute(statement)
    assert await owner.fetchval("SELECT count(*) FROM runtime.events") == 3
    assert await owner.fetchval("SELECT count(*) FROM runtime.receipts") == 1


@pytest.mark.parametrize("schema", ["control", "projection"])
async def test_the_service_sees_nothing_of_the_other_planes(service: Connection, schema: str) -> None:
    assert not await service.fetchval("SELECT has_schema_privilege($1, 'USAGE')", schema)
