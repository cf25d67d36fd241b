"""The commands of docs/operations/upgrade.md, in their order, on a real database.

There is no cluster. A stand-in for `kubectl apply -k` renders with the real one and runs the commands of the Jobs that
come out of it; the others must only be ones that kubectl knows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from oa_platform.postgres.migrate import migrate, read_directory
from oa_platform.postgres.planes import PLANES
from oa_platform.postgres.preparation import migrations_of
from oa_testing.postgres import REPOSITORY, Database
from tests.deploy.manifests import NO_RENDERER, renderer

pytestmark = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)

PAGE = REPOSITORY / "docs" / "operations" / "upgrade.md"
TIMEOUT_S = 300
KUBECTL = """\
import subprocess, sys, yaml
arguments = sys.argv[1:]
words = [word for word in arguments if not word.startswith("-") and word != "openagents"]
assert words[0] in ("apply", "delete", "wait", "rollout"), words
if words[0] == "apply":
    folder = arguments[arguments.index("-k") + 1]
    shown = subprocess.run([*{renderer!r}, folder], check=True, capture_output=True, text=True).stdout
    for document in filter(None, yaml.safe_load_all(shown)):
        if document["kind"] == "Job":
            spec = document["spec"]["template"]["spec"]
            for container in [*spec["initContainers"], *spec["containers"]]:
                assert container["image"] == "openagents/migrate:" + open("version").read(), container["image"]
                given = [one.replace("/app/code", {repository!r}) for one in container["args"]]
                subprocess.run([sys.executable, *container["command"][1:], *given], check=True)
            print("job", document["metadata"]["name"])
"""


def _block(section: str) -> str:
    """The commands of a section."""
    found = re.search(rf"^## {re.escape(section)}\n.*?^```\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert found, section
    return found[1]


@pytest.fixture
def place(tmp_path: Path, empty_database: Database) -> Path:
    """A checkout with secrets, whose `oa` and `kubectl` are those of the test."""
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    secret = tmp_path / "secrets" / "openagents-migrate" / "database-url"
    secret.parent.mkdir(parents=True)
    secret.write_text(empty_database.owner)
    secret.chmod(0o600)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "kubectl.py").write_text(KUBECTL.format(renderer=_rendering(), repository=str(REPOSITORY)))
    _program(programs / "kubectl", f'exec {sys.executable} {programs}/kubectl.py "$@"')
    _program(programs / "oa", f'exec {sys.executable} -m apps.cli "$@"')
    return tmp_path


def _rendering() -> list[str]:
    command = renderer()
    assert command is not None
    return [str(shutil.which(command[0])), *command[1:]]


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _run(place: Path, section: str, version: str) -> str:
    (place / "version").write_text(version)
    roots = os.pathsep.join(str(REPOSITORY / root) for root in ("", "libs", "gen"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OA_")}
    own = {
        "PATH": f"{place / 'programs'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": roots,
        "HOME": str(place),
        "OA_MIGRATE_DATABASE_URL_FILE": str(place / "secrets" / "openagents-migrate" / "database-url"),
    }
    done = subprocess.run(
        ["/bin/sh", "-euc", _block(section)],
        cwd=place,
        env=kept | own,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def _apply_all_but_the_newest(database: Database, folder: Path) -> list[str]:
    """A database as an earlier release left it; what it lacks."""
    lacking = []
    for plane in PLANES:
        files = read_directory(migrations_of(plane.service))
        before = folder / plane.service
        before.mkdir(parents=True)
        kept = max(len(files) - 1, 1)
        for file in files[:kept]:
            (before / file.name).write_text(file.sql, "utf-8")
        await migrate(database.owner, plane.service, before)
        lacking += [file.name for file in files[kept:]]
    return lacking


async def test_an_upgrade_is_what_the_page_says(place: Path, empty_database: Database, tmp_path: Path) -> None:
    lacking = await _apply_all_but_the_newest(empty_database, tmp_path / "before")
    assert lacking
    looked = _run(place, "Before", "")
    assert all(name in looked for name in lacking)
    first = _run(place, "First step: the new release", "0.2.0")
    assert "job migrate" in first
    assert all(f"applied {name}" in first for name in lacking)
    assert "The schemas are what this release needs." in first
    second = _run(place, "Second step: what only the release before needed", "0.2.0")
    assert "Nothing is pending." in second
    assert "job contract" in second
    back = _run(place, "Rollback", "0.1.0")
    assert back.count("up to date") == len(PLANES)


async def test_without_kubernetes(place: Path, empty_database: Database, tmp_path: Path) -> None:
    lacking = await _apply_all_but_the_newest(empty_database, tmp_path / "before")
    done = _run(place, "Without Kubernetes", "")
    assert all(name in done for name in lacking)
