"""A PostgreSQL for one test session, and a fresh migrated database for each test in a few milliseconds."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import asyncpg
import psutil

from oa_localstack import roles
from oa_localstack.ports import HOST, is_free
from oa_localstack.postgres import FAST, SUPERUSER, PostgresServer
from oa_localstack.stack import migrate_service

REPOSITORY = Path(__file__).resolve().parents[2]
_SHM = Path("/dev/shm")
_SHM_NEEDED_BYTES = 1 << 30
_PREFIX = "oa-test-"
_TEST_PORTS = range(20_000, 30_000)
"""Below the range from which systems give out ports for outgoing connections."""

DEVELOPMENT = {"OA_ENV": "development"}
"""What a service needs in its environment to run with secrets that are none."""
ON_FAST = {**DEVELOPMENT, "OA_DATABASE_MAY_LOSE_COMMITS": "true"}
"""What a service needs in its environment for a server with `FAST` settings."""

T = TypeVar("T")


@dataclass(frozen=True)
class Database:
    """One test's database. Every property is a DSN; `dsn(role)` gives any role's."""

    name: str
    port: int
    passwords: Mapping[str, str] = field(repr=False)

    def dsn(self, role: str) -> str:
        """The DSN for one of `oa_localstack.roles.ROLES` or the superuser."""
        return f"postgresql://{role}:{self.passwords[role]}@{HOST}:{self.port}/{self.name}"

    @property
    def owner(self) -> str:
        """For migrations: owns every schema."""
        return self.dsn(roles.OWNER)

    @property
    def control(self) -> str:
        """What the control service signs in with."""
        return self.dsn("control_app")

    @property
    def runtime(self) -> str:
        """What the runtime service signs in with."""
        return self.dsn("runtime_app")

    @property
    def projector(self) -> str:
        """What the projector service signs in with."""
        return self.dsn("projector_app")

    @property
    def admin(self) -> str:
        """The superuser, for what a test must do behind everybody's back (kill connections, look at locks)."""
        return self.dsn(SUPERUSER)


@dataclass(frozen=True)
class ServerAddress:
    """A running server: all that another process needs to use it."""

    port: int
    passwords: Mapping[str, str] = field(repr=False)

    def admin_dsn(self, database: str = "postgres") -> str:
        """The superuser's DSN."""
        return Database(database, self.port, self.passwords).admin


class SessionServer:
    """The server of a test session, started by whoever creates this; its data goes with it."""

    def __init__(self) -> None:
        self.directory = scratch_directory()
        passwords = {role: secrets.token_urlsafe(16) for role in (SUPERUSER, *roles.ROLES)}
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
        async with roles.admin_connection(self.address.admin_dsn()) as admin:
            await roles.prepare_cluster(admin, self.address.passwords)

    def stop(self) -> None:
        """Stop the server and remove its data."""
        asyncio.run(self.server.stop())
        shutil.rmtree(self.directory, ignore_errors=True)


class Databases:
    """Makes databases on a running server: a template for each set of services, a copy for each test.

    Not async, so that fixtures for plain and for async tests are the same; it keeps an event loop of its own that
    never runs while a test's does.
    """

    def __init__(self, address: ServerAddress, worker: str) -> None:
        self._address = address
        self._worker = worker
        self._made = 0
        self._templates: dict[tuple[str, ...], str] = {}
        self._loop = asyncio.new_event_loop()
        self._admin: asyncpg.Connection = self._run(roles.connect_admin(address.admin_dsn()))

    def create(self, services: tuple[str, ...]) -> Database:
        """A new database with the roles, the schemas and the migrations of `services`."""
        template = self._templates.get(services) or self._run(self._make_template(services))
        self._made += 1
        name = f"test_{self._worker}_{self._made}"
        self._run(roles.create_database(self._admin, name, template))
        return Database(name, self._address.port, self._address.passwords)

    def drop(self, database: Database) -> None:
        """Remove a database, with connections that a test left open."""
        self._run(self._admin.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)'))

    def close(self) -> None:
        """Let go of the server."""
        self._run(self._admin.close())
        self._loop.close()

    async def _make_template(self, services: tuple[str, ...]) -> str:
        name = "_".join(["template", self._worker, *services])
        await roles.create_database(self._admin, name)
        async with roles.admin_connection(self._address.admin_dsn(name)) as admin:
            await roles.prepare_schemas(admin)
        owner = Database(name, self._address.port, self._address.passwords).owner
        for service in services:
            await migrate_service(owner, service)
        self._templates[services] = name
        return name

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return self._loop.run_until_complete(work)


def scratch_directory() -> Path:
    """A new directory for this process's servers, in memory when there is room; others may pass through it.

    Directories of test processes that were killed are removed on the way.
    """
    roomy = _SHM.is_dir() and shutil.disk_usage(_SHM).free >= _SHM_NEEDED_BYTES
    parent = _SHM if roomy else Path(tempfile.gettempdir())
    for stale in parent.glob(f"{_PREFIX}*-*"):
        pid = stale.name.removeprefix(_PREFIX).split("-")[0]
        if stale.stat().st_uid == os.geteuid() and pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(stale, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    directory.chmod(0o711)
    return directory


def free_port(offsets: tuple[int, ...] = (0,)) -> int:
    """A random port such that it plus each of `offsets` is free now."""
    for _ in range(1000):
        base = random.choice(_TEST_PORTS)
        if all(is_free(base + offset) for offset in offsets):
            return base
    raise AssertionError(f"no free port in {_TEST_PORTS}")
