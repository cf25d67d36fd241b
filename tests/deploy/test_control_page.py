"""The commands of docs/operations/control.md, in their order, on a real PostgreSQL, up to a control that is ready."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import textwrap
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import asyncpg
import pytest

from apps.cli.tests.program import TIMEOUT_S
from oa_localstack.postgres.binaries import find_binaries
from oa_localstack.postgres.server import PostgresServer
from oa_testing.plain_http import plain_http
from oa_testing.postgres import ON_FAST, REPOSITORY, free_port

pytestmark = pytest.mark.long

PAGE = REPOSITORY / "docs" / "operations" / "control.md"
_SUPERUSER = "postgresql://postgres@db.example:5432/postgres"


def _blocks(section: str) -> list[str]:
    """The indented blocks of a section."""
    text = PAGE.read_text("utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)]


class Place:
    """A folder with the programs that the page calls."""

    def __init__(self, folder: Path, server: PostgresServer, binaries: Path) -> None:
        self.folder, self.server = folder, server
        programs = folder / "programs"
        programs.mkdir()
        for name, module in (("oa", "-m apps.cli"), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
            (programs / name).chmod(0o755)
        roots = os.pathsep.join(str(REPOSITORY / root) for root in ("", "libs", "gen"))
        self.ports = free_port((0, 1000, 1001, 1002, 1100))
        path = os.pathsep.join(map(str, (programs, binaries, os.environ["PATH"])))
        self.environment = {
            "PATH": path,
            "PYTHONPATH": roots,
            "HOME": str(folder),
            "OA_PORT_BASE": str(self.ports),
            "OA_MIGRATE_DATABASE_URL_FILE": "./secrets/openagents-migrate/database-url",
            **ON_FAST,
        }

    async def start(self, script: str) -> Process:
        """A script of the page, with this server's place and these ports."""
        script = script.replace(_SUPERUSER, self.server.dsn()).replace(
            "db.example:5432", f"127.0.0.1:{self.server.port}"
        )
        script = script.replace("127.0.0.1:9180", f"127.0.0.1:{self.ports + 1100}")
        return await asyncio.create_subprocess_exec(
            "sh", "-euc", script, cwd=self.folder, env=self.environment, stdout=PIPE, stderr=PIPE
        )

    async def run(self, script: str) -> str:
        """It must succeed."""
        process = await self.start(script)
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
        assert process.returncode == 0, (script, out, err)
        return out.decode()

    async def rows(self, of: str, statement: str) -> object:
        """What a role of the installation reads."""
        secret = self.folder / "secrets" / of / "database-url"
        connection = await asyncpg.connect(await asyncio.to_thread(secret.read_text))
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()


@pytest.fixture
def place(tmp_path: Path, own_postgres: PostgresServer) -> Place:
    return Place(tmp_path, own_postgres, find_binaries(own_postgres.account))


async def test_control_is_deployed_saved_and_restored_as_the_page_says(place: Place) -> None:
    prepare, migrate = _blocks("Database")
    (settings,) = _blocks("Settings")
    start, ready = _blocks("Start")
    await place.run(prepare)
    await place.run(migrate)
    await place.run(settings)
    process = await place.start(start)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while await (probe := await place.start(ready)).wait() != 0:
                assert process.returncode is None, await process.communicate()
                await asyncio.sleep(0.2)
            await probe.communicate()
        async with plain_http() as client:
            url = f"http://127.0.0.1:{place.ports}/openagents.control.v1.AuthService/StartChallenge"
            started = await client.post(
                url, json={"email": "ann@example.org", "deviceId": "dev_01K0000000000000000000000A"}
            )
            assert started.status_code == 200, started.text
    finally:
        process.terminate()
        await process.communicate()
    (dump,) = _blocks("Back up")
    await place.run(dump)
    events = "SELECT count(*) FROM control.audit_events"
    assert await place.rows("openagents-control", events) == 1
    await place.rows("openagents-migrate", "TRUNCATE control.audit_events CASCADE")
    await place.rows("openagents-migrate", "CREATE TABLE runtime.newer AS SELECT 1 AS one")  # of a later release
    restore, new_epoch = _blocks("Restore")
    await place.run(restore)
    assert await place.rows("openagents-control", events) == 1
    assert await place.rows("openagents-migrate", "SELECT to_regclass('runtime.newer')") is None
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await place.rows("openagents-control", "DELETE FROM control.audit_events")
    await place.run(new_epoch)
    ordered = "SELECT count(*) FROM runtime.log_epochs WHERE cause = 'ordered' AND given_by = 'ann'"
    assert await place.rows("openagents-runtime", ordered) == 1


def test_the_page_names_every_secret_of_control() -> None:
    page = PAGE.read_text("utf-8")
    (settings,) = _blocks("Settings")
    named = set(re.findall(r"openagents-control/([a-z.-]+)", settings))
    assert named == {"database-url", "signing-key.pem", "hmac-key", "service-token"}
    assert all(f"| `{name}` |" in page for name in named)
