"""The wheel, in an environment that knows nothing of this checkout: what it installs, and that `oa` works from it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from apps.cli.exits import Exit
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import free_port
from oa_testing.stack import PATIENT_START
from tests.house.files import REPO

TIMEOUT_S = 120.0
OURS = {
    "openagents",
    "openagents_betterproto",
    "oa_base",
    "oa_client",
    "oa_fanout",
    "oa_khala",
    "oa_localstack",
    "oa_platform",
    "oa_runlog",
    "oa_topics",
    "oa_wire",
    "oa_worker",
}
"""The top-level names that a user's environment gets; ADR 0017 says why these."""
_ASKS = """
import importlib.util, json
import openagents, openagents.runtime.v1.run_pb2
import apps
print(json.dumps({
    "openagents": openagents.__file__,
    "apps": apps.__file__,
    "services": importlib.util.find_spec("services") is not None,
}))
"""


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder in which a user works, who has a package `apps` of his own."""

    wheel: Path
    environment: Path
    folder: Path

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return str(self.environment / "bin" / "python")

    @property
    def oa(self) -> str:
        """The environment's `oa`."""
        return str(self.environment / "bin" / "oa")

    @property
    def variables(self) -> dict[str, str]:
        """Of a shell in which nothing of this checkout is set."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OA_", "PYTHON"))}
        home = self.folder / "home"
        own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "OA_HOME": str(self.folder / "stack")}
        return {**kept, **PATIENT_START, **own}

    def run(self, *command: str) -> str:
        """What a command of the user prints."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--no-index", "--no-deps"]
    subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--quiet", "--no-build-isolation", "--wheel-dir", str(out), str(REPO))
    return next(out.glob("openagents_runtime-*.whl"))


@pytest.fixture
def installed(built: Path, scratch: Path) -> Installed:
    """The wheel in an environment of its own, on top of the locked packages.

    A folder on the path brings these: what a `.pth` file in it would add, such as this checkout, stays out.
    """
    environment = scratch / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], timeout=TIMEOUT_S, check=True)
    _pip("--python", str(environment / "bin" / "python"), "install", "--quiet", str(built))
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    Path(packages, "locked.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    folder = scratch / "work"
    (folder / "apps").mkdir(parents=True)
    (folder / "home").mkdir()
    (folder / "apps" / "__init__.py").write_text("", "utf-8")
    return Installed(built, environment, folder)


def test_the_wheel_has_no_top_level_name_but_ours_and_no_tests(built: Path) -> None:
    names = zipfile.ZipFile(built).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == OURS
    assert [name for name in names if "/tests/" in name] == []
    assert len(names) == len(set(names))
    migrations = REPO.glob("services/*/migrations/*.sql")
    assert {f"openagents/_programs/{path.relative_to(REPO).as_posix()}" for path in migrations} <= set(names)


def test_a_users_own_apps_is_not_hidden_and_services_is_not_there(installed: Installed) -> None:
    seen = json.loads(installed.run(installed.python, "-c", _ASKS))
    assert Path(seen["openagents"]).is_relative_to(installed.environment)
    assert Path(seen["apps"]).is_relative_to(installed.folder)
    assert seen["services"] is False
    assert installed.run(installed.oa, "--version") == "oa, version 0.1.0\n"


_PROGRAM = """
import asyncio
from openagents import Client, ExecSpec, Finish, Refusal, RunFailed, Worker, events

async def main() -> Finish:
    async with Client.from_env() as client:
        run = await client.start("exec", ExecSpec(("true",)), key="k", labels={"a": "b"})
        async for event in run.events():
            if isinstance(event.body, events.TextDelta):
                reveal_type(event.body.data)
        reveal_type(await run.state())
        reveal_type(Worker)
        return await run.result()
"""


def test_a_users_program_is_typed_and_its_mistakes_are_found(installed: Installed) -> None:
    (installed.folder / "program.py").write_text(_PROGRAM, "utf-8")
    wrong = _PROGRAM.replace('("true",)', '"true"').replace("Worker, events", "Worker, Vorker, events")
    (installed.folder / "wrong.py").write_text(wrong, "utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir=mypy"]
    mypy += ["--python-executable", installed.python, "--config-file="]
    said = installed.run(*mypy, "program.py").splitlines()
    revealed = [re.findall(r'Revealed type is "(.*)"', line) for line in said]
    assert revealed[0] in (["bytes"], ["builtins.bytes"])
    assert revealed[1] == ["oa_client.core.models.Run"]
    assert "oa_worker.agents.worker.Worker" in revealed[2][0]
    found = subprocess.run(
        [*mypy, "wrong.py"], cwd=installed.folder, env=installed.variables, capture_output=True, text=True, check=False
    )
    assert 'wrong.py:7: error: Argument 1 to "ExecSpec"' in found.stdout
    assert 'Module "openagents" has no attribute "Vorker"' in found.stdout


def test_what_is_missing_is_named_with_what_to_install(installed: Installed) -> None:
    for path in installed.environment.rglob("locked.pth"):
        path.unlink()
    program = "import openagents\ntry: openagents.Client\nexcept ImportError as error: print(error)"
    said = installed.run(installed.python, "-c", program)
    assert said.startswith("openagents.Client needs the module ")
    assert said.endswith("; install 'openagents-runtime[sdk]'\n")
    command = [installed.oa, "--version"]
    done = subprocess.run(command, env=installed.variables, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.REFUSED
    assert done.stderr == "oa: the module click is not installed; run pip install 'openagents-runtime[cli]'\n"


def test_oa_says_when_another_distribution_has_replaced_the_package(installed: Installed) -> None:
    place = installed.run(installed.python, "-c", "import openagents; print(openagents.__file__)").strip()
    Path(place).write_text("", "utf-8")
    command = [installed.oa, "--version"]
    done = subprocess.run(command, env=installed.variables, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.REFUSED
    assert "another distribution has replaced the package openagents" in done.stderr


async def test_a_stack_and_a_run_from_the_wheel(installed: Installed) -> None:
    ports = str(free_port(tuple(PORT_OFFSETS.values())))
    async with _started(installed, ports, "up") as stack:
        await _until(stack, '"ready"')
        await _oa(installed, ports, "login", "--dev", "--email", "ann@example.org")
        async with _started(installed, ports, "worker", "start", "--adapter", "exec") as worker:
            await _until(worker, '"attached"')
            # A command of a run is the user's too: it sees the user's package.
            command = [installed.python, "-c", "import apps; print(apps.__file__)"]
            place = ["--cwd", str(installed.folder)]
            printed = await _oa(installed, ports, "run", "start", *place, "--", *command, as_json=False)
            assert printed.strip() == str(installed.folder / "apps" / "__init__.py")
        await _oa(installed, ports, "down")
        async with asyncio.timeout(TIMEOUT_S):
            assert await stack.wait() == 0


@asynccontextmanager
async def _started(installed: Installed, ports: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        installed.oa,
        *arguments,
        "--json",
        cwd=installed.folder,
        env={**installed.variables, "OA_PORT_BASE": ports},
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(TIMEOUT_S):
                await process.wait()


async def _until(process: asyncio.subprocess.Process, word: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        while word not in (line := (await process.stdout.readline()).decode()):
            assert line, f"it ended before it said {word}"


async def _oa(installed: Installed, ports: str, *arguments: str, as_json: bool = True) -> str:
    async with asyncio.timeout(TIMEOUT_S):
        process = await asyncio.create_subprocess_exec(
            installed.oa,
            *arguments,
            *(["--json"] if as_json else []),
            cwd=installed.folder,
            env={**installed.variables, "OA_PORT_BASE": ports},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stdout.decode() + stderr.decode()
    return stdout.decode()
