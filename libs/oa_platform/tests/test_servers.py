"""Which server will do, and how one is found: several hosts, read-only servers, lost commits, poolers, full servers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import structlog

from oa_base.refusal import Refusal
from oa_localstack.postgres.server import PostgresServer
from oa_platform.config.dsn import check_database_url, database_hosts, database_location
from oa_platform.config.parsers import Secret
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres import facts as server_facts
from oa_platform.postgres.at_start import check_schema
from oa_platform.postgres.facts import Facts, complaint, is_tight, no_room
from oa_platform.postgres.listen import Listener
from oa_platform.postgres.migrate import migrate
from oa_platform.postgres.pool import Postgres
from oa_platform.postgres.preparation import connect_admin
from oa_testing.peers.pg_front import pg_front
from oa_testing.postgres import FAST, Database, free_port

DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")


def _settings(dsn: str, **changes: object) -> DatabaseSettings:
    usual = DatabaseSettings(url=Secret(dsn), may_lose_commits=True, pool_min=1, pool_max=2, start_timeout_s=0)
    return replace(usual, watch_ms=600_000, **changes)  # type: ignore[arg-type]


async def _refused(work: Awaitable[object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value


async def _refused_start(settings: DatabaseSettings) -> Refusal:
    return await _refused(Postgres(settings, "test").__aenter__())


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


async def _is_ready(postgres: Postgres) -> bool:
    try:
        await postgres.check()
    except Refusal:
        return False
    return True


@asynccontextmanager
async def _admin(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def _write(postgres: Postgres) -> None:
    async with postgres.transaction() as connection:
        await connection.execute("CREATE TEMPORARY TABLE IF NOT EXISTS scratch (n int)")
        await connection.execute("SELECT pg_current_xact_id()")


# ------------------------------------------------------------------------------------------------- the URL


@pytest.mark.parametrize(
    ("url", "hosts", "location"),
    [
        ("postgresql://me:geheim@db.example/oa", (("db.example", 5432),), "db.example:5432/oa"),
        ("postgresql://me:geheim@a:1,b:2/oa", (("a", 1), ("b", 2)), "a:1,b:2/oa"),
        ("postgresql://me:geheim@a,b:2/oa?x=1", (("a", 5432), ("b", 2)), "a:5432,b:2/oa"),
        ("postgresql://me:geheim@[::1]:7,b/oa", (("::1", 7), ("b", 5432)), "[::1]:7,b:5432/oa"),
        ("postgresql:///oa", (), "localhost:5432/oa"),
        ("postgresql://me:geheim@/oa?host=a,b", (("a", 5432), ("b", 5432)), "a:5432,b:5432/oa"),
        ("postgresql://me:geheim@/oa?host=a,b&port=1,2&x=1", (("a", 1), ("b", 2)), "a:1,b:2/oa"),
        ("postgresql:///oa?host=a,b:3&port=7", (("a", 7), ("b", 7)), "a:7,b:7/oa"),
        ("postgresql:///oa?host=a,b:3", (("a", 5432), ("b", 3)), "a:5432,b:3/oa"),
        ("postgresql:///oa?host=/run/postgresql", (("/run/postgresql", 5432),), "/run/postgresql:5432/oa"),
        ("postgresql://me@a/oa?host=b&port=7", (("a", 5432),), "a:5432/oa"),
    ],
)
def test_a_url_may_have_several_hosts(url: str, hosts: tuple[tuple[str, int], ...], location: str) -> None:
    check_database_url(url)
    assert database_hosts(url) == hosts
    assert database_location(url) == location


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me@db/oa",
        "postgresql://me@db",
        "postgresql://me@a:x,b/oa",
        "postgresql://me@a:0/oa",
        "postgresql://me@a:65536/oa",
        "postgresql://me@a,,b/oa",
        "postgresql://me@/oa?host=a,b&port=1,2,3",
        "postgresql://me@/oa?host=a,,b",
        "postgresql://me@/oa?host=a&port=x",
        "postgresql://me@/oa?host=::1",
        "postgresql://me@a/oa?target_session_attrs=standby",
        "postgresql://me@a/oa?target_session_attrs=read-only",
    ],
)
def test_what_is_no_url_of_a_server_that_takes_writes_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        check_database_url(url)


# ------------------------------------------------------------------------------------------------- what will do


@pytest.mark.parametrize(
    ("facts", "may_lose", "reason", "says"),
    [
        (Facts(), False, "", ""),
        (Facts(off=("fsync",)), True, "", ""),
        (Facts(standby=True, read_only=True), True, "unavailable", "is a standby"),
        (Facts(read_only=True), True, "unavailable", "default_transaction_read_only"),
        (Facts(off=("fsync",)), False, "invalid_setting", "fsync is off; turn it on"),
        (Facts(off=DURABILITY), False, "invalid_setting", "synchronous_commit are off; turn them on"),
        (Facts(own_session=False), True, "invalid_setting", "name the server itself in OA_DATABASE_URL"),
        (Facts(major_version=15), True, "invalid_setting", "db:5432/oa is PostgreSQL 15; upgrade it to 16 or newer"),
        (Facts(major_version=16), True, "", ""),
        (Facts(encoding="SQL_ASCII"), True, "invalid_setting", "encoding SQL_ASCII, which can't store every character"),
    ],
)
def test_what_a_server_must_be(facts: Facts, may_lose: bool, reason: str, says: str) -> None:
    error = complaint(facts, "db:5432/oa", may_lose)
    assert (error.refusal.reason if error else "") == reason
    assert says in str(error)


@pytest.mark.parametrize(("room", "fits", "tight"), [(9, False, True), (10, True, True), (20, True, False)])
def test_a_pool_must_fit_and_should_fit_twice(room: int, fits: bool, tight: bool) -> None:
    facts = Facts(room=room)
    assert (no_room(facts, "db:5432/oa", 10) is None) is fits
    assert is_tight(facts, 10) is tight


async def test_a_server_that_is_too_old_is_refused(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the version that a real server has."""
    monkeypatch.setattr(server_facts, "MIN_MAJOR_VERSION", 99)
    refusal = await _refused_start(_settings(empty_database.owner))
    assert (refusal.reason, refusal.field) == ("invalid_setting", "OA_DATABASE_URL")
    assert "upgrade it to 99 or newer" in refusal.message


async def test_a_database_that_can_not_store_every_character_is_refused(own_postgres: PostgresServer) -> None:
    async with _admin(own_postgres.dsn()) as admin:
        await admin.execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        )
    refusal = await _refused_start(_settings(own_postgres.dsn("latin")))
    assert (refusal.reason, refusal.field) == ("invalid_setting", "OA_DATABASE_URL")
    assert "latin has the encoding LATIN1, which can't store every character; make it anew" in refusal.message


async def test_a_pool_that_the_server_has_no_room_for_is_refused(empty_database: Database) -> None:
    refusal = await _refused_start(_settings(empty_database.owner, pool_max=1000))
    assert (refusal.reason, refusal.field) == ("invalid_setting", "OA_DATABASE_POOL_MAX")
    assert "allows 197 connections, and OA_DATABASE_POOL_MAX is 1000; lower it" in refusal.message


@pytest.mark.parametrize("limit", ["DATABASE {database}", "ROLE projector_app"])
async def test_a_pool_that_a_limit_has_no_room_for_is_refused(own_postgres: PostgresServer, limit: str) -> None:
    dsn = own_postgres.dsn().replace("postgres:only", "projector_app:only")
    async with _admin(own_postgres.dsn()) as admin:
        await admin.execute(f"CREATE ROLE projector_app LOGIN PASSWORD '{own_postgres.superuser_password}'")
        await _started(_settings(dsn))
        await admin.execute(f"ALTER {limit.format(database='postgres')} CONNECTION LIMIT 1")
    refusal = await _refused_start(_settings(dsn))
    assert "allows 1 connections, and OA_DATABASE_POOL_MAX is 2; lower it" in refusal.message


async def test_a_pool_that_fits_only_once_is_said(empty_database: Database) -> None:
    """During an upgrade there are two."""
    with structlog.testing.capture_logs() as logs:
        await _started(_settings(empty_database.owner, pool_max=100))
    (line,) = [line for line in logs if line["event"] == "database_connections_tight"]
    assert (line["allowed"], line["pool_max"]) == (197, 100)


# ------------------------------------------------------------------------------------------------- several hosts


@pytest.mark.parametrize("attributes", ["", "?target_session_attrs=read-write"])
async def test_a_host_that_is_gone_is_passed_over(empty_database: Database, attributes: str) -> None:
    address = f"127.0.0.1:{empty_database.port}"
    dsn = empty_database.owner.replace(address, f"127.0.0.1:{free_port()},{address}") + attributes
    async with Postgres(_settings(dsn), "test") as postgres:
        await postgres.check()


@pytest.mark.parametrize("in_query", [False, True], ids=["hosts before the path", "hosts in the query"])
async def test_a_host_that_is_silent_is_not_waited_for(empty_database: Database, *, in_query: bool) -> None:
    """A machine that died refuses nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address, gone = f"127.0.0.1:{empty_database.port}", silent.getsockname()[1]
        if in_query:
            ports = f"{gone},{empty_database.port}"
            dsn = empty_database.owner.replace(address, "") + f"?host=127.0.0.1,127.0.0.1&port={ports}"
        else:
            dsn = empty_database.owner.replace(address, f"127.0.0.1:{gone},{address}")
        async with Postgres(_settings(dsn, connect_timeout_s=60, acquire_timeout_s=60), "test") as postgres:
            await postgres.check()


async def test_no_such_host_is_unavailable(empty_database: Database) -> None:
    async with Postgres(_settings(empty_database.owner), "test") as postgres:
        postgres._target = replace(postgres._target, dsn="postgresql://me@no-such-host.invalid/oa")
        await postgres.expire()
        assert (await _refused(postgres.check())).reason == "unavailable"


@pytest.mark.parametrize(
    ("sqlstate", "reason", "says"),
    [
        ("53300", "unavailable", "takes no more connections; raise max_connections"),
        ("28P01", "invalid_setting", "refuses the role (InvalidPasswordError); correct OA_DATABASE_URL"),
        ("28000", "invalid_setting", "refuses the role (InvalidAuthorizationSpecificationError)"),
    ],
)
@pytest.mark.parametrize("gone", [False, True], ids=["one host", "beside a host that is gone"])
async def test_a_server_that_lets_nobody_in_says_so_to_operators(
    empty_database: Database, sqlstate: str, reason: str, says: str, *, gone: bool
) -> None:
    """Callers are told to try again: after a password was changed, that is no defect."""
    settings = _settings(empty_database.owner, pool_min=0)
    async with pg_front(empty_database.port) as front, Postgres(settings, "test") as postgres:
        hosts = [*([f"127.0.0.1:{free_port()}"] if gone else []), f"127.0.0.1:{front.port}"]
        dsn = empty_database.owner.replace(f"127.0.0.1:{empty_database.port}", ",".join(hosts))
        postgres._target = replace(postgres._target, dsn=dsn)
        await postgres.expire()
        front.refusals = [(sqlstate, "no")] * 1000
        refusal = await _refused(postgres.check())
        assert (refusal.reason, refusal.field) == (reason, "OA_DATABASE_URL")
        assert f"the database at 127.0.0.1:{front.port}/{empty_database.name} {says}" in refusal.message
        assert (await _refused(_write(postgres))).reason == "unavailable"
        refused = await _refused_start(_settings(dsn))
        assert (refused.reason, says in refused.message) == (reason, True)
        front.refusals = []
        await postgres.check()


async def test_a_role_that_is_refused_is_waited_for_only_beside_a_host_that_may_come_back(
    empty_database: Database,
) -> None:
    async with pg_front(empty_database.port) as front:
        address = f"127.0.0.1:{empty_database.port}"
        alone = empty_database.owner.replace(address, f"127.0.0.1:{front.port}")
        front.refusals = [("28P01", "no")]
        assert (await _refused_start(_settings(alone, start_timeout_s=60))).reason == "invalid_setting"
        beside = empty_database.owner.replace(address, f"127.0.0.1:{free_port()},127.0.0.1:{front.port}")
        front.refusals = [("28P01", "no")]
        await _started(_settings(beside, start_timeout_s=60))


# ------------------------------------------------------------------------------------------------- read-only servers


async def test_a_server_that_takes_no_writes_is_not_ready_until_it_does(empty_database: Database) -> None:
    async with _admin(empty_database.admin) as admin, Postgres(_settings(empty_database.owner), "test") as postgres:
        role = f"ALTER ROLE oa_owner IN DATABASE {empty_database.name}"
        await admin.execute(f"{role} SET default_transaction_read_only = on")
        await postgres.check()  # the sessions that there are were not asked
        await _end_sessions(admin)
        await _until(lambda: _not_ready(postgres))
        refusal = await _refused(postgres.check())
        assert (refusal.reason, refusal.field) == ("unavailable", "OA_DATABASE_URL")
        assert f"127.0.0.1:{empty_database.port}/{empty_database.name} takes no writes now" in refusal.message
        assert empty_database.name not in (await _refused(_write(postgres))).message, "that is for its operator"
        refused = await _refused_start(_settings(empty_database.owner))
        assert (refused.reason, "takes no writes now" in refused.message) == ("unavailable", True)

        waiting = asyncio.create_task(_started(_settings(empty_database.owner, start_timeout_s=60)))
        await admin.execute(f"{role} RESET default_transaction_read_only")
        await waiting
        await postgres.check()


async def _end_sessions(admin: "asyncpg.Connection[asyncpg.Record]") -> None:
    await admin.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def _started(settings: DatabaseSettings) -> None:
    async with Postgres(settings, "test"):
        pass


async def test_sessions_on_a_server_that_takes_no_writes_any_more_are_given_up(durable: PostgresServer) -> None:
    """Old sessions are read-only, new ones are not: what a failover behind one name looks like."""
    async with _admin(durable.dsn()) as admin, Postgres(_settings(durable.dsn()), "test") as postgres:
        await _write(postgres)
        async with postgres.acquire() as kept:
            old = kept.get_server_pid()
            await admin.execute("ALTER ROLE postgres SET default_transaction_read_only = off")
            await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await _reload(admin)
            await _until(lambda: _shows(kept, "transaction_read_only", "on"))
        refusal = await _refused(_write(postgres))
        assert (refusal.reason, refusal.retry_after_ms > 0) == ("unavailable", True)
        await _write(postgres)
        async with postgres.acquire() as connection:
            assert connection.get_server_pid() != old


async def test_a_look_finds_a_server_that_takes_no_writes_where_nothing_is_written(durable: PostgresServer) -> None:
    async with _admin(durable.dsn()) as admin:
        settings = replace(_settings(durable.dsn()), watch_ms=20)
        with structlog.testing.capture_logs() as logs:
            async with Postgres(settings, "test") as postgres:
                await admin.execute("ALTER ROLE postgres SET default_transaction_read_only = off")
                await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
                await _reload(admin)
                await _until(lambda: _answered(postgres.generation > 0))
                await _until(lambda: _answered(any(line["event"] == "database_usable" for line in logs)))
                await _write(postgres)


async def _answered(value: bool) -> bool:
    return value


async def test_a_listener_leaves_a_server_that_takes_no_writes_any_more(durable: PostgresServer) -> None:
    async def look(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        pids.add(connection.get_server_pid())

    pids: set[int] = set()
    settings = _settings(durable.dsn())
    listener = Listener(settings, "test", ["one"], on_notify=lambda *_: None, look=look, interval_s=0.05)
    task = asyncio.create_task(listener.run())
    try:
        await _until(lambda: _answered(len(pids) == 1))
        async with _admin(durable.dsn()) as admin:
            await admin.execute("ALTER ROLE postgres SET default_transaction_read_only = off")
            await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await _reload(admin)
        await _until(lambda: _answered(len(pids) == 2))
    finally:
        task.cancel()


# ------------------------------------------------------------------------------------------------- lost commits


@pytest_asyncio.fixture
async def durable(scratch: Path) -> AsyncIterator[PostgresServer]:
    """A server that keeps what it acknowledges, and whose settings can be changed."""
    settings = {name: value for name, value in FAST.items() if name not in DURABILITY}
    server = PostgresServer(scratch / "postgres", free_port(), "only-for-this-test", scratch / "log", settings)
    await server.start()
    yield server
    await server.stop()


async def _reload(admin: "asyncpg.Connection[asyncpg.Record]") -> None:
    before = await admin.fetchval("SELECT pg_conf_load_time()")
    await admin.execute("SELECT pg_reload_conf()")
    await _until(lambda: _reloaded(admin, before))


async def _reloaded(admin: "asyncpg.Connection[asyncpg.Record]", before: object) -> bool:
    return bool(await admin.fetchval("SELECT pg_conf_load_time()") != before)


async def _shows(connection: object, name: str, value: str) -> bool:
    return bool(await connection.fetchval(f"SHOW {name}") == value)  # type: ignore[attr-defined]


async def test_a_server_that_may_lose_commits_is_refused_unless_that_is_allowed(durable: PostgresServer) -> None:
    strict = replace(_settings(durable.dsn()), may_lose_commits=False)
    await _started(strict)
    async with _admin(durable.dsn()) as admin:
        for name in DURABILITY:
            await admin.execute(f"ALTER SYSTEM SET {name} = off")
            await _reload(admin)
            refusal = await _refused_start(strict)
            assert (refusal.reason, refusal.field) == ("invalid_setting", "OA_DATABASE_MAY_LOSE_COMMITS")
            assert f": {name} is off" in refusal.message
            with structlog.testing.capture_logs() as logs:
                await _started(_settings(durable.dsn()))
            assert [line["off"] for line in logs if line["event"] == "database_may_lose_commits"] == [[name]]
            await admin.execute(f"ALTER SYSTEM RESET {name}")
            await _reload(admin)
        await admin.execute("ALTER ROLE postgres SET synchronous_commit = off")
        assert "synchronous_commit is off" in (await _refused_start(strict)).message
        for kept in ("local", "remote_write", "remote_apply", "on"):
            await admin.execute(f"ALTER ROLE postgres SET synchronous_commit = {kept}")
            await _started(strict)


async def test_a_server_that_becomes_one_is_not_ready_until_it_keeps_commits_again(durable: PostgresServer) -> None:
    strict = replace(_settings(durable.dsn()), may_lose_commits=False)
    async with _admin(durable.dsn()) as admin, Postgres(strict, "test") as postgres:
        await _write(postgres)
        await admin.execute("ALTER SYSTEM SET synchronous_commit = off")
        await _reload(admin)
        await _until(lambda: _not_ready(postgres))
        assert "synchronous_commit is off" in (await _refused(postgres.check())).message
        assert (await _refused(_write(postgres))).reason == "unavailable"
        await admin.execute("ALTER SYSTEM RESET synchronous_commit")
        await _reload(admin)
        await _until(lambda: _is_ready(postgres))
        await _write(postgres)


async def _not_ready(postgres: Postgres) -> bool:
    return not await _is_ready(postgres)


# ------------------------------------------------------------------------------------------------- every new connection


async def test_a_hook_sees_every_new_connection_before_anybody_else(empty_database: Database) -> None:
    seen: list[int] = []

    async def look(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        seen.append(await connection.fetchval("SELECT pg_backend_pid()"))

    async with Postgres(_settings(empty_database.owner, pool_min=0), "test") as postgres:
        postgres.on_connect(look)
        for _ in range(3):
            await postgres.expire()
            async with postgres.acquire() as connection:
                assert seen[-1] == connection.get_server_pid()
            await postgres.check()
        assert len(set(seen)) == len(seen) == 3


async def test_what_a_hook_raises_keeps_the_connection_from_being_used(empty_database: Database) -> None:
    async def refuse(_: object) -> None:
        raise Refusal("unavailable", "not this one")

    async with Postgres(_settings(empty_database.owner, pool_min=0), "test") as postgres:
        postgres.on_connect(refuse)
        await postgres.expire()
        assert (await _refused(_write(postgres))).message == "not this one"


# ------------------------------------------------------------------------------------------------- poolers


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A folder with one that does nothing."""
    (tmp_path / "0001_nothing.sql").write_text("SELECT 1;")
    return tmp_path


async def test_a_pooler_is_refused_with_what_to_do(empty_database: Database, migrations: Path) -> None:
    async with pg_front(empty_database.port) as front:
        dsn = empty_database.owner.replace(f":{empty_database.port}/", f":{front.port}/")
        await _started(_settings(dsn))
        front.refusals = [("08P01", "unsupported startup parameter: statement_timeout")]
        refusals = [await _refused_start(_settings(dsn))]
        front.own_keys = True  # and the startup parameters are ignored
        refusals.append(await _refused_start(_settings(dsn)))
        refusals.append(await _refused(migrate(dsn, "runtime", migrations)))
    for refusal in refusals:
        assert (refusal.reason, refusal.field) == ("invalid_setting", "OA_DATABASE_URL")
        assert f"answers at 127.0.0.1:{front.port}/" in refusal.message
        assert "name the server itself in OA_DATABASE_URL" in refusal.message


# ------------------------------------------------------------------------------------------------- temporary refusals

TEMPORARY = [
    ("53300", "sorry, too many clients already"),
    ("57P03", "the database system is starting up"),
    ("57P01", "terminating connection due to administrator command"),
    ("57P02", "terminating connection because of crash of another server process"),
    ("57P03", "the database system is shutting down"),
]


async def test_a_server_that_refuses_for_the_moment_is_waited_for(empty_database: Database, migrations: Path) -> None:
    async with pg_front(empty_database.port) as front:

        def through(dsn: str) -> str:
            return dsn.replace(f":{empty_database.port}/", f":{front.port}/")

        front.refusals = [*TEMPORARY]
        await _started(_settings(through(empty_database.owner), start_timeout_s=60))
        assert not front.refusals
        front.refusals = [*TEMPORARY]
        await migrate(through(empty_database.owner), "runtime", migrations, 60)
        assert not front.refusals
        front.refusals = [*TEMPORARY]
        await (await connect_admin(through(empty_database.admin))).close()
        assert not front.refusals
        front.refusals = [*TEMPORARY]
        refusal = await _refused_start(_settings(through(empty_database.owner)))
        assert (refusal.reason, refusal.field) == ("unavailable", "OA_DATABASE_URL")


async def test_a_start_that_waits_for_the_database_says_so_once(empty_database: Database, migrations: Path) -> None:
    await migrate(empty_database.owner, "runtime", migrations)
    async with pg_front(empty_database.port) as front:
        dsn = empty_database.owner.replace(f":{empty_database.port}", f":{front.port}")
        settings = _settings(dsn, start_timeout_s=60)
        starts: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: _started(settings),
            lambda: check_schema(settings, "runtime", migrations),
        )
        for start in starts:
            front.refusals = [("57P03", "no")] * 3
            with structlog.testing.capture_logs() as logs:
                await start()
            assert not front.refusals
            (said,) = (log for log in logs if log["event"] == "waiting_for_database")
            assert said["database"] == f"127.0.0.1:{front.port}/{empty_database.name}"
            assert said["why"] == "CannotConnectNowError"


async def test_too_many_connections_are_waited_for(empty_database: Database) -> None:
    async with _admin(empty_database.admin) as admin:
        await admin.execute(f"ALTER DATABASE {empty_database.name} CONNECTION LIMIT 0")
        assert "takes no more connections" in (await _refused_start(_settings(empty_database.owner))).message
        waiting = asyncio.create_task(_started(_settings(empty_database.owner, start_timeout_s=60)))
        await admin.execute(f"ALTER DATABASE {empty_database.name} CONNECTION LIMIT -1")
        await waiting


# ------------------------------------------------------------------------------------------------- full disks


@pytest.mark.parametrize("sqlstate", ["53100", "58030"])
async def test_a_database_that_can_not_store_is_not_ready(empty_database: Database, sqlstate: str) -> None:
    async with Postgres(_settings(empty_database.owner, no_room_s=600), "test") as postgres:
        refusal = await _refused(_raise(postgres, sqlstate))
        assert (refusal.reason, refusal.retry_after_ms > 0) == ("unavailable", True)
        assert "could not store something a moment ago" in (await _refused(postgres.check())).message


async def test_it_is_ready_again_after_a_while(empty_database: Database) -> None:
    async with Postgres(_settings(empty_database.owner, no_room_s=0.1), "test") as postgres:
        await _refused(_raise(postgres, "53100"))
        await _until(lambda: _is_ready(postgres))


async def _raise(postgres: Postgres, sqlstate: str) -> None:
    async with postgres.acquire() as connection:
        await connection.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$")
