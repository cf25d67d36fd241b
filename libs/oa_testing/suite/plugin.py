"""pytest fixtures, loaded from the root `conftest.py`.

**A database for a test.** Ask for one of these; each is a `oa_testing.postgres.Database`, new for every test, made
in about 10 ms from a migrated template, with the real roles and grants, and removed afterwards::

    async def test_a_run_is_stored(runtime_database: Database) -> None:
        connection = await asyncpg.connect(runtime_database.runtime)  # signed in as runtime_app
        ...

- `database`: the migrations of all services; `.control`, `.runtime`, `.projector` are the services' DSNs, `.owner`
  the one for migrations, `.admin` the superuser's.
- `control_database`, `runtime_database`, `projector_database`: the migrations of this service only, so a defect in
  another service's does not fail your tests.
- `empty_database`: roles and schemas, no migrations.

They are plain fixtures, for sync and async tests alike; don't ask for them with `request.getfixturevalue` inside a
running event loop. The server is started once per test session (with xdist: once for all workers).

**A server of its own.** `own_postgres` is a running `PostgresServer` that a test may `kill()` and `start()` again.

**The whole stack.** `stack` is a running `oa_testing.stack.StackUnderTest`: the four real services on free ports, on a
Postgres of their own, whose data are a copy with all migrations (`cluster`). Stacks that a test makes itself begin with
nothing. `await stack.stop()`, `stack.kill(name)`, `await stack.start_service(name)`, `stack.pid(name)`, `stack.urls`,
`stack.env`. When the test fails, the ends of all logs are in its report.
`shared_stack` is one stack for all tests of a module, which leave it as it was; they run in the module's event loop:
`pytestmark = pytest.mark.asyncio(loop_scope="module")`.

**Time.** `clock` is an `oa_testing.clock.FakeClock`.

**A company's proxy.** `oa_testing.peers.forward_proxy.ForwardProxy`; `dead_proxies` sets every variable for proxies in
the environment, in both letter cases, to a proxy that doesn't exist.

**No secret in a log.** The output of a test and the logs of its stack are searched for tokens, keys and passwords
(`oa_testing.suite.leaks`): one of these fails the test, or the teardown of its stack.

**A network that breaks.** `fault_proxies` is an async factory: `proxy = await fault_proxies("127.0.0.1", port)`
listens on `proxy.port` and does `cut()`, `stall()`, `truncate()`, `delay()`; see `oa_testing.peers.fault_proxy`.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from oa_localstack.postgres.server import PostgresServer
from oa_localstack.processes.child import last_lines
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.clock import FakeClock
from oa_testing.cluster import Cluster
from oa_testing.peers.fault_proxy import FaultProxy
from oa_testing.postgres import (
    FAST,
    REPOSITORY,
    Database,
    Databases,
    ServerAddress,
    SessionServer,
    free_port,
    scratch_directory,
)
from oa_testing.stack import StackUnderTest
from oa_testing.suite.leaks import check_logs, leaks_in, logged

_SERVER = pytest.StashKey[SessionServer]()
_REPORTED_LINES = 40
FaultProxies = Callable[[str, int], Awaitable[FaultProxy]]


def _session_server(config: pytest.Config) -> SessionServer:
    """The server of this process, started on first use and stopped by `pytest_unconfigure`."""
    if _SERVER not in config.stash:
        config.stash[_SERVER] = SessionServer()
    return config.stash[_SERVER]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give all workers of xdist one server, that of the controller, and a folder for what they make once for all."""
    server = _session_server(node.config)
    node.workerinput["oa_postgres"] = (server.address.port, dict(server.address.passwords))
    node.workerinput["oa_shared"] = str(server.directory)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing running."""
    if _SERVER in config.stash:
        config.stash[_SERVER].stop()


@pytest.fixture(scope="session")
def postgres_address(pytestconfig: pytest.Config) -> ServerAddress:
    """The session's server."""
    handed_over = getattr(pytestconfig, "workerinput", {}).get("oa_postgres")
    return ServerAddress(*handed_over) if handed_over else _session_server(pytestconfig).address


@pytest.fixture(scope="session")
def databases(postgres_address: ServerAddress, pytestconfig: pytest.Config) -> Iterator[Databases]:
    """Maker of databases; most tests want `database` or a service's instead."""
    worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "main")
    databases = Databases(postgres_address, worker)
    yield databases
    databases.close()


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    """A fresh database with every service's migrations."""
    yield from _fresh(databases, "control", "runtime", "projector")


@pytest.fixture
def control_database(databases: Databases) -> Iterator[Database]:
    """A fresh database with control's migrations."""
    yield from _fresh(databases, "control")


@pytest.fixture
def runtime_database(databases: Databases) -> Iterator[Database]:
    """A fresh database with runtime's migrations."""
    yield from _fresh(databases, "runtime")


@pytest.fixture
def projector_database(databases: Databases) -> Iterator[Database]:
    """A fresh database with the projector's migrations."""
    yield from _fresh(databases, "projector")


@pytest.fixture
def empty_database(databases: Databases) -> Iterator[Database]:
    """A fresh database with roles and schemas and nothing in them."""
    yield from _fresh(databases)


def _fresh(databases: Databases, *services: str) -> Iterator[Database]:
    database = databases.create(services)
    yield database
    databases.drop(database)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory that the user of Postgres can reach, in memory when there is room; removed afterwards."""
    directory = scratch_directory()
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture
async def own_postgres(scratch: Path) -> AsyncIterator[PostgresServer]:
    """A running server for this test alone, which it may kill and start again."""
    server = PostgresServer(
        root=scratch / "postgres",
        port=free_port(),
        superuser_password="only-for-this-test",
        log_path=scratch / "postgres.log",
        settings=FAST,
    )
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The data with which a stack begins."""
    if shared := getattr(pytestconfig, "workerinput", {}).get("oa_shared"):
        yield Cluster.shared(Path(shared) / "cluster")
        return
    directory = scratch_directory()
    yield Cluster.make(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture
async def stack(scratch: Path, cluster: Cluster) -> AsyncIterator[StackUnderTest]:
    """The four real services on free ports, for this test alone."""
    async with _running_stack(scratch, cluster) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_stack(cluster: Cluster) -> AsyncIterator[StackUnderTest]:
    """The four real services on free ports, for all tests of a module."""
    directory = scratch_directory()
    async with _running_stack(directory, cluster) as stack:
        yield stack
    shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def _running_stack(directory: Path, cluster: Cluster) -> AsyncIterator[StackUnderTest]:
    base = free_port(tuple(PORT_OFFSETS.values()))
    stack = StackUnderTest(directory / "home", port_base=base, postgres_settings=FAST)
    cluster.put_into(stack.home)
    await stack.start()
    try:
        yield stack
    finally:
        await stack.stop()
    check_logs(stack.home / "logs")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test during which a secret was logged; add the ends of a failed test's stack logs to its report."""
    report = yield
    if report.when == "teardown" and report.passed:  # by then everything that was logged is there
        leaks = [leak for _, text in report.sections for leak in leaks_in(logged(text))]
        if leaks:
            report.outcome, report.longrepr = "failed", "secrets were logged:\n" + "\n".join(leaks)
    arguments = [getattr(argument, "stack", argument) for argument in getattr(item, "funcargs", {}).values()]
    for stack in {argument for argument in arguments if report.failed and isinstance(argument, StackUnderTest)}:
        for path in sorted((stack.home / "logs").glob("*.log")):
            report.sections.append((f"log of {path.stem}", last_lines(path, _REPORTED_LINES)))
    return report


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until told otherwise."""
    return FakeClock()


@pytest_asyncio.fixture
async def fault_proxies() -> AsyncIterator[FaultProxies]:
    """Start proxies in front of servers; all of them are closed at the end of the test."""
    started: list[FaultProxy] = []

    async def start(host: str, port: int) -> FaultProxy:
        proxy = FaultProxy(host, port)
        started.append(proxy)
        await proxy.start()
        return proxy

    yield start
    for proxy in started:
        await proxy.close()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


DEAD_PROXIES = {
    cased: "http://127.0.0.1:9"
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    for cased in (name, name.upper())
}


@pytest.fixture
def dead_proxies(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set our environment's variables to a proxy that doesn't exist; returns them, for the environment of a process."""
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, url in DEAD_PROXIES.items():
        monkeypatch.setenv(name, url)
    return DEAD_PROXIES
