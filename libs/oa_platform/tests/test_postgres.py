"""The pool against a real server: what breaks is typed, and what comes back is used again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_localstack.postgres.server import PostgresServer
from oa_platform.config.dsn import database_location
from oa_platform.config.parsers import Secret
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database, free_port
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import PATIENCE_S


def _settings(dsn: str) -> DatabaseSettings:
    return DatabaseSettings(
        url=Secret(dsn),
        may_lose_commits=True,
        pool_min=1,
        pool_max=2,
        start_timeout_s=0,
        acquire_timeout_s=30,
        connect_timeout_s=30,
    )


@pytest.fixture
async def postgres(empty_database: Database) -> AsyncIterator[Postgres]:
    async with Postgres(_settings(empty_database.runtime), "test") as pool:
        yield pool


async def test_connections_have_their_limits(postgres: Postgres) -> None:
    async with postgres.acquire() as connection:
        for name, value in (
            ("statement_timeout", "10s"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "10s"),
            ("application_name", "test"),
            ("TimeZone", "UTC"),
        ):
            assert await connection.fetchval(f"SHOW {name}") == value


_LISTED = "SELECT count(*) FROM pg_class JOIN unnest($1::oid[]) AS wanted ON oid = wanted"
_PLANS = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1"


async def test_a_statement_is_planned_once_whatever_its_arguments_are(postgres: Postgres) -> None:
    async with postgres.acquire() as connection:
        for count in range(10):  # the server makes its first five plans for the arguments, unless it is told not to
            await connection.fetch(_LISTED, list(range(count)))
        assert [tuple(row) for row in await connection.fetch(_PLANS, _LISTED)] == [(10, 0)]


async def test_what_an_operator_sets_for_everybody_changes_no_session_of_ours(empty_database: Database) -> None:
    wished = {
        "statement_timeout": "1min",
        "TimeZone": "Asia/Kolkata",
        "default_transaction_isolation": "serializable",
        "default_transaction_deferrable": "on",
        "idle_session_timeout": "1min",
        "transaction_timeout": "1min",
    }
    admin = await asyncpg.connect(empty_database.admin)
    try:
        for name, value in wished.items():
            await admin.execute(f"ALTER DATABASE \"{empty_database.name}\" SET {name} = '{value}'")
    finally:
        await admin.close()
    async with Postgres(_settings(empty_database.runtime), "test") as postgres, postgres.transaction() as connection:
        found = {name: await connection.fetchval(f"SHOW {name}") for name in (*wished, "transaction_isolation")}
    assert found == {
        "statement_timeout": "10s",
        "TimeZone": "UTC",
        "default_transaction_isolation": "read committed",
        "default_transaction_deferrable": "off",
        "idle_session_timeout": "0",
        "transaction_timeout": "0",
        "transaction_isolation": "read committed",
    }


async def test_a_transaction_is_whole_or_nothing(empty_database: Database) -> None:
    async with Postgres(_settings(empty_database.owner), "test") as postgres:
        async with postgres.transaction() as connection:
            await connection.execute("CREATE TABLE runtime.t (n int)")
        with pytest.raises(ZeroDivisionError):
            await _insert_and_fail(postgres)
        async with postgres.acquire() as connection:
            assert await connection.fetchval("SELECT count(*) FROM runtime.t") == 0


async def _insert_and_fail(postgres: Postgres) -> None:
    async with postgres.transaction() as connection:
        await connection.execute("INSERT INTO runtime.t VALUES (1)")
        raise ZeroDivisionError


async def test_a_slow_statement_is_ended(empty_database: Database) -> None:
    settings = replace(_settings(empty_database.runtime), statement_timeout_ms=1000)
    async with Postgres(settings, "test") as postgres:
        with pytest.raises(Refusal) as caught:
            await _execute(postgres, "SELECT pg_sleep(600)")
        assert caught.value.reason == "deadline_exceeded"
        await postgres.check()


async def test_no_free_connection_is_unavailable_in_time(empty_database: Database) -> None:
    settings = replace(_settings(empty_database.runtime), pool_max=1, acquire_timeout_s=1)
    async with Postgres(settings, "test") as postgres:
        async with postgres.acquire(), asyncio.timeout(PATIENCE_S):
            with pytest.raises(Refusal) as caught:
                await postgres.check()
        assert (caught.value.reason, caught.value.retry_after_ms > 0) == ("unavailable", True)
        await postgres.check()


async def test_errors_of_sql_stay_what_they_are(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.exceptions.UndefinedTableError):
        await _execute(postgres, "SELECT * FROM nothing_like_it")
    with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
        await _execute(postgres, "CREATE TABLE control.mine (n int)")


async def test_a_timeout_in_the_block_is_not_taken_for_one_of_the_pool(postgres: Postgres) -> None:
    with pytest.raises(Refusal) as caught:
        await _time_out_inside(postgres)
    assert caught.value.reason == "deadline_exceeded"
    await postgres.check()


async def test_giving_up_in_the_block_gives_the_connection_back(postgres: Postgres) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await _execute(postgres, "SELECT pg_sleep(600)")
    await postgres.check()


async def _under_way(postgres: Postgres, statement: str) -> None:
    """Wait until a statement like this one runs."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'active' AND query LIKE $1"
    )
    async with postgres.acquire() as connection, asyncio.timeout(PATIENCE_S):
        while not await connection.fetchval(query, statement):
            await asyncio.sleep(0.01)


async def _execute(postgres: Postgres, sql: str) -> None:
    async with postgres.acquire() as connection:
        await connection.execute(sql)


async def _time_out_inside(postgres: Postgres) -> None:
    async with postgres.acquire():
        raise TimeoutError


async def test_a_killed_server_is_unavailable_and_used_again_when_it_is_back(own_postgres: PostgresServer) -> None:
    async with Postgres(_settings(own_postgres.dsn()), "test") as postgres:
        await postgres.check()
        async with postgres.acquire() as connection:
            own_postgres.kill()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await connection.execute("SELECT pg_sleep(600)")
        with pytest.raises(Refusal) as caught:
            await postgres.check()
        assert caught.value.reason == "unavailable"
        await own_postgres.start()
        await postgres.check()


async def test_a_connection_that_breaks_under_a_statement_is_unavailable(own_postgres: PostgresServer) -> None:
    async with Postgres(_settings(own_postgres.dsn()), "test") as postgres:
        sleeping = asyncio.create_task(_execute(postgres, "SELECT pg_sleep(600)"))
        await _under_way(postgres, "SELECT pg_sleep%")
        own_postgres.kill()
        with pytest.raises(Refusal) as caught:
            await sleeping
        assert caught.value.reason == "unavailable"


async def test_a_silent_network_is_given_up(empty_database: Database, fault_proxies: FaultProxies) -> None:
    proxy = await fault_proxies("127.0.0.1", empty_database.port)
    dsn = empty_database.runtime.replace(f":{empty_database.port}/", f":{proxy.port}/")
    settings = replace(_settings(dsn), statement_timeout_ms=1000)
    async with Postgres(settings, "test") as postgres:
        await postgres.check()
        proxy.stall()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(Refusal) as caught:
                await postgres.check()
            assert caught.value.reason in ("deadline_exceeded", "unavailable")
        proxy.resume()
        await postgres.check()


async def test_a_start_waits_for_the_database(own_postgres: PostgresServer) -> None:
    await own_postgres.stop()
    settings = replace(_settings(own_postgres.dsn()), start_timeout_s=PATIENCE_S)
    opening = asyncio.create_task(Postgres(settings, "test").__aenter__())
    await asyncio.sleep(0.3)
    assert not opening.done()
    await own_postgres.start()
    postgres = await opening
    await postgres.check()
    await postgres.__aexit__(None, None, None)


async def _refused_start(dsn: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await Postgres(_settings(dsn), "test").__aenter__()
    assert caught.value.field == "OA_DATABASE_URL"
    assert "geheim" not in str(caught.value)
    return caught.value


async def test_a_start_without_database_names_it_and_no_password() -> None:
    port = free_port()
    refusal = await _refused_start(f"postgresql://me:geheim@127.0.0.1:{port}/openagents")
    assert refusal.reason == "unavailable"
    assert f"127.0.0.1:{port}/openagents" in refusal.message


async def test_a_wrong_password_or_database_does_not_wait(empty_database: Database) -> None:
    address = f"127.0.0.1:{empty_database.port}"
    wrong_password = f"postgresql://runtime_app:geheim@{address}/{empty_database.name}"
    assert (await _refused_start(wrong_password)).reason == "invalid_setting"
    wrong_database = empty_database.runtime.replace(f"/{empty_database.name}", "/no_such_database")
    assert (await _refused_start(wrong_database)).reason == "invalid_setting"


async def test_a_pool_is_opened_before_it_is_used() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        await Postgres(_settings("postgresql://x/y"), "test").check()


def test_the_location_holds_no_secret() -> None:
    assert (
        database_location("postgresql://me:geheim@db.example/openagents?sslmode=require")
        == "db.example:5432/openagents"
    )
