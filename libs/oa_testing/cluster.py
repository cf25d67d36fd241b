"""A PostgreSQL that is made once for all stacks of a session: each gets a copy, in a tenth of the time."""

from __future__ import annotations

import asyncio
import fcntl
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from oa_localstack.files import replace
from oa_localstack.postgres.placement import data_root
from oa_localstack.postgres.server import SUPERUSER, PostgresServer
from oa_localstack.processes.account import postgres_account
from oa_platform.postgres import preparation
from oa_platform.postgres.planes import DATABASE, PLANES, ROLES
from oa_testing.postgres import FAST, Database, free_port

_ROOT = "postgres"


@dataclass(frozen=True)
class Cluster:
    """The data of a stopped server, with our database and the migrations of all services."""

    data: Path
    superuser_password: str = field(repr=False)

    @classmethod
    def shared(cls, directory: Path) -> Cluster:
        """The one below `directory`, which the first of several processes makes while the others wait."""
        directory.mkdir(exist_ok=True)
        directory.chmod(0o711)  # whatever the umask is: the user of Postgres passes through
        known = directory / "superuser"
        with (directory / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not known.exists():
                shutil.rmtree(directory / _ROOT, ignore_errors=True)  # of one who did not finish it
                replace(known, cls.make(directory).superuser_password.encode())
        return cls(directory / _ROOT / "data", known.read_text())

    @classmethod
    def make(cls, directory: Path) -> Cluster:
        """Make one below `directory`, as the first start of a stack does."""
        passwords = {role: secrets.token_urlsafe(16) for role in (SUPERUSER, *ROLES)}
        server = PostgresServer(
            root=directory / _ROOT,
            port=free_port(),
            superuser_password=passwords[SUPERUSER],
            log_path=directory / "postgres.log",
            settings=FAST,
        )
        asyncio.run(cls._prepare(server, passwords))
        return cls(server.data, passwords[SUPERUSER])

    @staticmethod
    async def _prepare(server: PostgresServer, passwords: dict[str, str]) -> None:
        await server.start()
        try:
            await preparation.prepare(server.dsn(), passwords)
            owner = Database(DATABASE, server.port, passwords).owner
            for plane in PLANES:
                await preparation.migrate_service(owner, plane.service)
        finally:
            await server.stop()

    def put_into(self, home: Path) -> None:
        """Copy it into the home of a stack that was never started, which gives its own passwords to the other roles."""
        folder = home / "secrets"
        folder.mkdir(mode=0o700, parents=True)
        replace(folder / f"db-{SUPERUSER}", self.superuser_password.encode())
        root = data_root(home, postgres_account())
        subprocess.run(["cp", "--archive", self.data, root / "data"], check=True)
