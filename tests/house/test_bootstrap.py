"""`make bootstrap` makes an environment whole or says what it misses, whatever came between, and spoils nobody's files.

The interpreter of these tests plays `venv` and `pip`, so that nothing is installed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from oa_testing.waiting import PATIENCE_S, eventually
from tests.house.files import REPO

_INTERPRETER = """\
#!/bin/sh
for last; do :; done
case "$*" in
  "-m venv "*)
    mkdir -p "$last/bin" "$last/lib/python3/site-packages"
    touch "$last/pyvenv.cfg"
    cp "$0" "$last/bin/python"
    echo venv >>"$DONE"
    while [ -n "${HOLD:-}" ] && [ ! -e "$HOLD" ]; do sleep .02; done ;;
  *" --editable "*) pwd >"${0%/bin/python}/lib/python3/site-packages/_openagents_runtime.pth" ;;
  *" -r requirements/dev.lock")
    echo "packages $(cat requirements/dev.lock)" >>"$DONE"
    touch "${0%/bin/python}/half"
    exit "${STATUS:-0}" ;;
  "-m oa_localstack clean") echo clean >>"$DONE" ;;
  "-S -c "*) shift 2; exec "$REAL" -S -c "$@" ;;
esac
"""


class Checkout:
    """A checkout with the bootstrap, in which nothing is installed yet."""

    def __init__(self, folder: Path, above: Path) -> None:
        self.folder = folder
        (folder / "tools").mkdir(parents=True)
        (folder / "requirements").mkdir()
        shutil.copy(REPO / "tools" / "bootstrap.sh", folder / "tools")
        for name in ("pyproject.toml", "requirements/bootstrap.lock"):
            (folder / name).touch()
        self.lock("one")
        self.python = above / "an interpreter"
        self.python.write_text(_INTERPRETER)
        self.python.chmod(0o755)
        self._done = above / "done"
        self._done.touch()

    def lock(self, text: str) -> None:
        """State other packages."""
        (self.folder / "requirements" / "dev.lock").write_text(text)

    @property
    def done(self) -> list[str]:
        """What was made and installed so far."""
        return self._done.read_text().splitlines()

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Variables for a bootstrap."""
        given = {
            "PYTHON": str(self.python),
            "REAL": sys.executable,
            "DONE": str(self._done),
            "BOOTSTRAP_WITHOUT_UV": "1",
        }
        return {**{name: value for name, value in os.environ.items() if name != "VENV"}, **given, **more}

    @property
    def command(self) -> str:
        """The bootstrap of this checkout."""
        return str(self.folder / "tools" / "bootstrap.sh")

    def bootstrap(self, **more: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [self.command], env=self.environment(more), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """In a folder with a space in its name."""
    return Checkout(tmp_path / "check out", tmp_path)


def test_it_installs_once_what_the_lock_says(checkout: Checkout) -> None:
    assert checkout.bootstrap().returncode == 0
    assert checkout.bootstrap().returncode == 0
    assert checkout.done == ["venv", "packages one"]


def test_packages_of_an_installation_that_failed_are_not_taken_for_those_of_the_lock(checkout: Checkout) -> None:
    """Somebody tries another branch, is interrupted, and goes back."""
    checkout.bootstrap()
    checkout.lock("two")
    assert checkout.bootstrap(STATUS="1").returncode == 1
    checkout.lock("one")
    assert checkout.bootstrap().returncode == 0
    assert checkout.done == ["venv", "packages one", "packages two", "venv", "packages one"], "in a new environment"


def test_what_an_interrupted_bootstrap_has_left_is_not_used(checkout: Checkout) -> None:
    assert checkout.bootstrap(STATUS="1").returncode == 1
    (checkout.folder / ".venv" / "half made").touch()
    assert checkout.bootstrap().returncode == 0
    assert not (checkout.folder / ".venv" / "half made").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock, nothing keeps two apart")
async def test_of_two_at_once_the_second_finds_the_work_done(checkout: Checkout, tmp_path: Path) -> None:
    env = checkout.environment({"HOLD": str(tmp_path / "go")})
    first = await asyncio.create_subprocess_exec(checkout.command, env=env)
    await eventually(lambda: checkout.done == ["venv"])
    second = await asyncio.create_subprocess_exec(checkout.command, env=env)
    of_second = psutil.Process(second.pid)
    await eventually(lambda: "flock" in _names_below(of_second) or len(checkout.done) > 1)
    (tmp_path / "go").touch()
    assert [await first.wait(), await second.wait()] == [0, 0]
    assert checkout.done == ["venv", "packages one"]


def _names_below(process: psutil.Process) -> set[str]:
    return {child.name() for child in process.children()}


def test_a_folder_that_is_no_environment_keeps_its_files(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "projects").mkdir()
    (tmp_path / "projects" / "work").touch()
    done = checkout.bootstrap(VENV=str(tmp_path / "projects"))
    assert done.returncode == 1
    assert "is not empty, and no environment; name another folder in VENV" in done.stderr
    assert [path.name for path in (tmp_path / "projects").iterdir()] == ["work"]


def test_an_environment_behind_a_link_is_not_emptied(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / ".place").write_text("/elsewhere")
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    done = checkout.bootstrap(VENV=str(tmp_path / "ours"))
    assert done.returncode == 1
    assert "is a symbolic link; remove it" in done.stderr
    assert (tmp_path / "theirs" / ".place").exists()


def test_without_a_usable_python_it_says_which_it_needs(checkout: Checkout) -> None:
    done = checkout.bootstrap(PYTHON="/bin/false")
    assert done.returncode == 1
    assert "PYTHON=/bin/false is not CPython 3.11 or newer" in done.stderr
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_folder_with_any_name_is_among_the_import_roots_in_every_locale(tmp_path: Path, locale: str) -> None:
    """Python 3.11 and 3.12 read the file in the encoding of the locale, and don't start if they can't."""
    checkout = Checkout(tmp_path / "prüf stand", tmp_path)
    assert checkout.bootstrap().returncode == 0
    show = "import os, site, sys; site.addsitedir(sys.argv[1]); print(ascii(os.fsencode(sys.path[-1])))"
    packages = str(checkout.folder / ".venv" / "lib" / "python3" / "site-packages")
    command = [sys.executable, "-c", show, packages]
    shown = subprocess.run(command, env={"LC_ALL": locale}, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (0, f"{os.fsencode(checkout.folder)!a}\n"), shown.stderr


def test_clean_works_beside_half_an_environment_and_makes_one_only_where_there_is_a_stack(checkout: Checkout) -> None:
    shutil.copy(REPO / "Makefile", checkout.folder)
    checkout.bootstrap(STATUS="1")
    assert _clean(checkout) == ["venv", "packages one"], "nothing more was done"
    (checkout.folder / ".oa").mkdir()
    assert _clean(checkout)[2:] == ["venv", "packages one", "clean"]
    assert not (checkout.folder / ".oa").exists()


def _clean(checkout: Checkout) -> list[str]:
    above = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "OA_HOME")
    env = {name: value for name, value in checkout.environment({}).items() if name not in above}
    subprocess.run(["make", "clean"], cwd=checkout.folder, env=env, timeout=PATIENCE_S, check=True)
    return checkout.done
