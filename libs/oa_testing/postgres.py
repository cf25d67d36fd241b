"""A PostgreSQL for one test session, and a fresh migrated database for each test in a few milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import random
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psutil

from oa_localstack.installation.ports import HOST, obstacle
from oa_localstack.postgres.server import SUPERUSER, PostgresServer, Settings
from oa_platform.config.loading import load
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres import preparation
from oa_platform.postgres.planes import OWNER, ROLES
from oa_testing.temporary import shared_temporary

REPOSITORY = Path(__file__).resolve().parents[2]
_SHM = Path("/dev/shm")
_SHM_NEEDED_BYTES = 1 << 30
_PREFIX = "oa-test-"
_TEST_PORTS = range(20_000, 30_000)
"""Below the range from which systems give out ports for outgoing connections."""
_KEPT_PORTS = 100
"""How many of the last ports that a process got are kept for it: more than any test uses at once."""

FAST: Settings = {
    "fsync": "off",
    "synchronous_commit": "on",  # without it, kill -9 loses acknowledged commits; without fsync it is cheap
    "full_page_writes": "off",
    "autovacuum": "off",
    "io_method": "sync",
    "dynamic_shared_memory_type": "mmap",  # inside the data directory, so that it is removed with it
    "shared_buffers": "64MB",
    "max_wal_size": "2GB",
    "scram_iterations": "1",  # passwords are random; 4096, in Python, are a third of what a connection costs its client
}
"""For tests: survives kill -9 of the server, not of the machine."""

DEVELOPMENT = {"OA_ENV": "development"}
"""Variables that a service needs to run with secrets that aren't secret."""
ON_FAST = {**DEVELOPMENT, "OA_DATABASE_MAY_LOSE_COMMITS": "true"}
"""Variables that a service needs for a server with `FAST` settings."""
PATIENT = {
    "OA_DATABASE_CONNECT_TIMEOUT_S": "60",
    "OA_DATABASE_ACQUIRE_TIMEOUT_S": "60",
    "OA_DATABASE_STATEMENT_TIMEOUT_MS": "60000",
    "OA_DATABASE_LOCK_TIMEOUT_MS": "60000",
    "OA_DATABASE_IDLE_TRANSACTION_TIMEOUT_MS": "60000",
}
"""A service's waits for its database in tests that aren't about them: a busy machine takes longer than the defaults."""

T = TypeVar("T")


def patient_settings(dsn: str, **changes: Any) -> DatabaseSettings:
    """Settings of a `PATIENT` pool on a server with `FAST` settings; `changes` are fields."""
    return replace(load(DatabaseSettings, {"OA_DATABASE_URL": dsn, **ON_FAST, **PATIENT}), **changes)


@dataclass(frozen=True)
class Database:
    """One test's database. Every property is a DSN; `dsn(role)` gives any role's."""

    name: str
    port: int
    passwords: Mapping[str, str] = field(repr=False)

    def dsn(self, role: str) -> str:
        """The DSN for one of `oa_platform.postgres.planes.ROLES` or the superuser."""
        return f"postgresql://{role}:{self.passwords[role]}@{HOST}:{self.port}/{self.name}"

    @property
    def owner(self) -> str:
        """For migrations: owns every schema."""
        return self.dsn(OWNER)

    @property
    def control(self) -> str:
        """For the control service."""
        return self.dsn("control_app")

    @property
    def runtime(self) -> str:
        """For the runtime service."""
        return self.dsn("runtime_app")

    @property
    def projector(self) -> str:
        """For the projector service."""
        return self.dsn("projector_app")

    @property
    def admin(self) -> str:
        """The superuser's, for what a test must do without the services knowing (kill connections, look at locks)."""
        return self.dsn(SUPERUSER)


@dataclass(frozen=True)
class ServerAddress:
    """A running server: everything that another process needs to use it."""

    port: int
    passwords: Mapping[str, str] = field(repr=False)

    def admin_dsn(self, database: str = "postgres") -> str:
        """The superuser's DSN."""
        return Database(database, self.port, self.passwords).admin


class SessionServer:
    """The server of a test session. Creating this starts the server; `stop` removes its data, too."""

    def __init__(self) -> None:
        self.directory = scratch_directory()
        passwords = {role: secrets.token_urlsafe(16) for role in (SUPERUSER, *ROLES)}
        self.address = ServerAddress(free_port(), passwords)
        self.server = PostgresServer(
            root=self.directory / "postgres",
            port=self.address.port,
            superuser_password=passwords[SUPERUSER],
            log_path=self.directory / "postgres.log",
            settings=FAST,
        )
        try:
            asyncio.run(self._start())
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    async def _start(self) -> None:
        await self.server.start()
        async with preparation.admin_connection(self.address.admin_dsn()) as admin:
            await preparation.prepare_cluster(admin, self.address.passwords)

    def stop(self) -> None:
        """Stop the server and remove its data."""
        asyncio.run(self.server.stop())
        shutil.rmtree(self.directory, ignore_errors=True)


class Databases:
    """Makes databases on a running server: a template for each set of services, a copy for each test.

    Not async, so that sync and async tests have the same fixtures. It has an event loop of its own, which never runs
    while a test's does.
    """

    def __init__(self, address: ServerAddress, worker: str) -> None:
        self._address = address
        self._worker = worker
        self._made = 0
        self._templates: dict[tuple[str, ...], str] = {}
        self._loop = asyncio.new_event_loop()
        self._admin: asyncpg.Connection = self._run(preparation.connect_admin(address.admin_dsn()))

    def create(self, services: tuple[str, ...]) -> Database:
        """A new database with the roles, the schemas and the migrations of `services`."""
        template = self._templates.get(services) or self._run(self._make_template(services))
        self._made += 1
        name = f"test_{self._worker}_{self._made}"
        self._run(preparation.create_database(self._admin, name, template))
        return Database(name, self._address.port, self._address.passwords)

    def drop(self, database: Database) -> None:
        """Remove a database, and close connections to it that a test left open."""
        self._run(self._admin.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)'))

    def close(self) -> None:
        """Disconnect from the server."""
        self._run(self._admin.close())
        self._loop.close()

    async def _make_template(self, services: tuple[str, ...]) -> str:
        name = "_".join(["template", self._worker, *services])
        await preparation.create_database(self._admin, name)
        async with preparation.admin_connection(self._address.admin_dsn(name)) as admin:
            await preparation.prepare_schemas(admin)
        owner = Database(name, self._address.port, self._address.passwords).owner
        for service in services:
            await preparation.migrate_service(owner, service)
        self._templates[services] = name
        return name

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return self._loop.run_until_complete(work)


def scratch_directory() -> Path:
    """Make a directory for this process's servers, in memory when there is room. Other users may pass through it.

    Also removes directories of test processes that were killed.
    """
    roomy = _SHM.is_dir() and shutil.disk_usage(_SHM).free >= _SHM_NEEDED_BYTES
    parent = _SHM if roomy else shared_temporary()
    for stale in parent.glob(f"{_PREFIX}*-*"):
        pid = stale.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and _is_ours(stale):
            shutil.rmtree(stale, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    directory.chmod(0o711)
    return directory


def _is_ours(path: Path) -> bool:
    """Whether `path` exists and belongs to our user; another test process may be removing it."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_uid == os.geteuid()
    return False


class _Reservations:
    """Ports that this process means to use, known to the test processes of all users as locked bytes of one file.

    Otherwise another process could take a port after it was checked and before the server listens there. The kernel
    drops the locks when the process ends; locks of ports given out long ago are dropped as new ones are taken.
    """

    def __init__(self) -> None:
        self._file = _open_for_all_users(shared_temporary() / "oa-test-ports")
        self._given: deque[int] = deque()

    def take(self, ports: Collection[int]) -> bool:
        """Reserve all of `ports`, or none if one is another process's, was given out recently, or is in use."""
        taken: list[int] = []
        for port in ports:
            if port in self._given or not self._lock(port):
                break
            taken.append(port)
        if len(taken) < len(ports) or any(obstacle(port) for port in ports):
            for port in taken:
                self._unlock(port)
            return False
        self._given.extend(ports)
        while len(self._given) > _KEPT_PORTS:
            self._unlock(self._given.popleft())
        return True

    def _lock(self, port: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        return True

    def _unlock(self, port: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, port)


def _open_for_all_users(path: Path) -> int:
    """The file of this name. Whoever makes it, everybody may lock its bytes from its first moment on."""
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent) as made:
            os.fchmod(made.fileno(), 0o666)
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(made.name)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


@functools.cache
def _reservations(pid: int) -> _Reservations:
    """The reservations of this process: a fork has none of its parent's locks."""
    return _Reservations()


def free_port(offsets: tuple[int, ...] = (0,)) -> int:
    """A random port. It plus each of `offsets` is free, and no other test process gets these ports meanwhile."""
    reservations = _reservations(os.getpid())
    for _ in range(1000):
        base = random.choice(_TEST_PORTS)
        if reservations.take([base + offset for offset in offsets]):
            return base
    raise AssertionError(f"no free port in {_TEST_PORTS}")
