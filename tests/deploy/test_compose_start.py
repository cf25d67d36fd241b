"""The installation on one machine starts: each container's own command, files, certificates and order, on loopback.

What Compose would do is done by hand: paths lead to the folders that it mounts, names of containers to localhost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apps.cli.admin.database import prepare
from apps.cli.admin.secrets import new_secrets, read_passwords, write_secrets
from oa_localstack.postgres.server import PostgresServer
from oa_testing.fork_server import PYTHON
from oa_testing.postgres import REPOSITORY, free_port
from oa_testing.waiting import PATIENCE_S
from tests.deploy.compose import COMPOSE, ONE_MACHINE, Document, environment_of, mounts_of, on_this_machine, project
from tests.deploy.settings import SETTINGS

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="this machine has no openssl"),
]

_PORTS = (8080, 8090, 9080, 9081, 9082, 9083, 9180, 9181, 9182, 9183, 9444)
_CONTAINERS = re.compile(r"(?<=//)(?:control-edge|runtime|projector)(?=:)|(?<=^)0\.0\.0\.0(?=:)")
_PATH = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
# The tests' server answers before its disk has what it says.
_OF_THE_TEST = {"OA_DATABASE_MAY_LOSE_COMMITS": "true"}


class Machine:
    """The project of one folder of secrets, and where its ports are here."""

    def __init__(self, secrets: Path, cache: Path) -> None:
        base = free_port(tuple(port - _PORTS[0] for port in _PORTS))
        self._ports = {str(port): str(base + port - _PORTS[0]) for port in _PORTS}
        self._cache = cache
        self._tls = secrets / "tls"
        self.services: dict[str, Document] = project({"SECRETS": str(secrets)}, ONE_MACHINE)["services"]

    def environment(self, name: str) -> dict[str, str]:
        """What the container finds, with names, ports and paths of this machine."""
        service = self.services[name]
        found = on_this_machine(environment_of(service), mounts_of(service) | {"/var/cache/openagents": self.own(name)})
        called = {key: self._moved(_CONTAINERS.sub(_here, value)) for key, value in found.items()}
        return _PATH | _OF_THE_TEST | called

    def own(self, name: str) -> str:
        """The container's folder for what it may write."""
        folder = self._cache / name
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def command(self, name: str) -> list[str]:
        """What the container runs."""
        service = self.services[name]
        words: list[str] = [*service["entrypoint"], *service.get("command", ())]
        assert words[0] == "python3"
        return [PYTHON, *(word.replace("/app/code", str(REPOSITORY)) for word in words[1:])]

    def health(self, name: str) -> list[str]:
        """What Compose runs in the container to learn whether it is healthy."""
        words: list[str] = self.services[name]["healthcheck"]["test"]
        assert words[:2] == ["CMD", "python3"]
        own = str(self._tls / name)
        return [sys.executable, *(self._moved(word.replace("/etc/openagents/tls", own)) for word in words[2:])]

    def port(self, published: int) -> str:
        """Where a published port is here."""
        return self._ports[str(published)]

    def _moved(self, text: str) -> str:
        return re.sub(r"(?<=:)(\d{4})(?=/|$)", lambda match: self._ports.get(match[0], match[0]), text)


def _here(found: re.Match[str]) -> str:
    """The address here of a container, or of all that a container has."""
    return "127.0.0.1" if found[0] == "0.0.0.0" else "localhost"


async def _started(command: list[str], env: dict[str, str], log: Path) -> asyncio.subprocess.Process:
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        return await asyncio.create_subprocess_exec(*command, env=env, stdout=out, stderr=out)
    finally:
        os.close(out)


async def _status(command: list[str], env: dict[str, str], log: Path) -> int | None:
    process = await _started(command, env, log)
    async with asyncio.timeout(PATIENCE_S):
        return await process.wait()


@contextlib.asynccontextmanager
async def _running(machine: Machine, name: str, log: Path) -> AsyncIterator[None]:
    """A service, from when its health check says that it is healthy."""
    health_log = log.with_suffix(".health")
    process = await _started(machine.command(name), machine.environment(name), log)
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            while await _status(machine.health(name), _PATH, health_log) != 0:
                assert process.returncode is None, _text(log)
                await asyncio.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _text(log: Path) -> str:
    return log.read_text("utf-8")


@pytest.fixture
def secrets(tmp_path: Path, own_postgres: PostgresServer) -> Path:
    """The folder that an installer makes, for the server of this test."""
    folder = tmp_path / "secrets"
    write_secrets(folder, new_secrets(f"127.0.0.1:{own_postgres.port}"), "openagents")
    subprocess.run([COMPOSE / "certificates.sh", folder], check=True, capture_output=True, timeout=PATIENCE_S)
    if os.geteuid() == 0:  # here they run as the user who made the files, and not as 10001
        subprocess.run(["chown", "-R", "0:0", folder], check=True, timeout=PATIENCE_S)
    return folder


async def test_everything_starts_in_the_order_of_the_file(
    tmp_path: Path, secrets: Path, own_postgres: PostgresServer
) -> None:
    await prepare({"OA_ADMIN_DATABASE_URL": own_postgres.dsn()}, read_passwords(secrets))
    machine = Machine(secrets, tmp_path / "cache")
    async with contextlib.AsyncExitStack() as running:
        for name in _in_order(machine.services):
            log = tmp_path / f"{name}.log"
            if name in SETTINGS:
                await running.enter_async_context(_running(machine, name, log))
            else:
                assert await _status(machine.command(name), machine.environment(name), log) == 0, _text(log)
        assert [name for name in SETTINGS if '"plaintext"' in _text(tmp_path / f"{name}.log")] == []
        assert "settings" in await _of_an_operator(machine, secrets / "openagents-operator", "keys", "list")


async def _of_an_operator(machine: Machine, files: Path, *words: str) -> str:
    """What `oa admin` says to somebody who has what the page names: the port on this machine, and four files."""
    environment = {
        "OA_CONTROL_GRPC": f"localhost:{machine.port(9080)}",
        "OA_OPERATOR_TOKEN_FILE": str(files / "service-token"),
        "OA_TLS_CERT_FILE": str(files / "tls.crt"),
        "OA_TLS_KEY_FILE": str(files / "tls.key"),
        "OA_TLS_CA_FILE": str(files / "ca.crt"),
    }
    command = [PYTHON, "-m", "apps.cli", "admin", *words]
    process = await asyncio.create_subprocess_exec(*command, env=_PATH | environment, stdout=subprocess.PIPE)
    async with asyncio.timeout(PATIENCE_S):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


def _in_order(services: dict[str, Document]) -> list[str]:
    """Services of ours, each after those that it waits for."""
    found: list[str] = []
    waiting = [name for name in services if name != "postgres"]
    while waiting:
        ready = [name for name in waiting if services[name].get("depends_on", {}).keys() <= {"postgres", *found}]
        assert ready, f"{waiting} wait for each other"
        found += ready
        waiting = [name for name in waiting if name not in ready]
    return found
