"""What the preparation of a database leaves behind."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import asyncpg

from oa_localstack.postgres.server import SUPERUSER, PostgresServer
from oa_platform.postgres import preparation
from oa_platform.postgres.planes import DATABASE, ROLES
from oa_testing.postgres import FAST, Database, free_port

LOGGED = {
    "log_statement": "all",
    "log_min_error_statement": "debug5",
    "log_min_duration_statement": "0",
    "log_min_duration_sample": "0",
    "log_statement_sample_rate": "1",
    "log_transaction_sample_rate": "1",
}


async def test_a_database_that_an_administrator_made_is_prepared_as_well(scratch: Path) -> None:
    """With a collation of their own, for example; it belongs to them."""
    passwords = {role: secrets.token_urlsafe(16) for role in (SUPERUSER, *ROLES)}
    log = scratch / "postgres.log"
    server = PostgresServer(scratch / "postgres", free_port(), passwords[SUPERUSER], log, FAST)
    await server.start()
    try:
        async with preparation.admin_connection(server.dsn()) as admin:
            await admin.execute(f"CREATE DATABASE {DATABASE}")
        await preparation.prepare(server.dsn(), passwords)
        database = Database(DATABASE, server.port, passwords)
        await preparation.migrate_service(database.owner, "projector")
        connection = await asyncpg.connect(database.projector)
        assert await connection.fetchval("SELECT count(*) FROM projection.run_summaries") == 0
        await connection.close()
    finally:
        await server.stop()


async def test_a_server_that_logs_every_statement_logs_no_password(scratch: Path) -> None:
    passwords = {role: secrets.token_urlsafe(16) for role in (SUPERUSER, *ROLES)}
    log = scratch / "postgres.log"
    server = PostgresServer(scratch / "postgres", free_port(), passwords[SUPERUSER], log, {**FAST, **LOGGED})
    await server.start()
    try:
        await preparation.prepare(server.dsn(), passwords)
        connection = await asyncpg.connect(Database(DATABASE, server.port, passwords).runtime)
        await connection.execute("SELECT 'logged'")
        await connection.close()
    finally:
        await server.stop()
    logged = await asyncio.to_thread(log.read_text, "utf-8")
    assert "SELECT 'logged'" in logged
    assert not [role for role, password in passwords.items() if password in logged]
