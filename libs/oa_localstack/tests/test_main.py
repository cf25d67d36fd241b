"""`python -m oa_localstack` on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from oa_base.visible import LAYOUT, visible
from oa_testing.postgres import REPOSITORY

TIMEOUT_S = 120.0


def test_the_name_of_a_folder_drives_no_terminal(tmp_path: Path) -> None:
    home = tmp_path / "x\x1b]0;pwned\a\x1b[2J\u202e你\udcff"
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("", "libs", "gen"))
    env = {**os.environ, "OA_HOME": str(home), "PYTHONPATH": path, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "oa_localstack", "clean"]
    done = subprocess.run(command, env=env, capture_output=True, cwd=tmp_path, timeout=TIMEOUT_S, check=False)
    said = done.stdout.decode("latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert r"x\x1b]0;pwned\x07\x1b[2J\u202e\u4f60\udcff" in said
    assert visible(said, LAYOUT) == said


def _clean(home: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("", "libs", "gen"))
    env = {**os.environ, "OA_HOME": str(home), "PYTHONPATH": path}
    command = [sys.executable, "-m", "oa_localstack", "clean"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_what_can_not_be_removed_is_not_called_removed(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    done = _clean(tmp_path / "home")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"the stack can't be removed: Not a directory ({tmp_path / 'home'});")


def test_a_stack_behind_a_link_is_removed_with_it(tmp_path: Path) -> None:
    (tmp_path / "large disk" / "secrets").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "large disk")
    assert _clean(tmp_path / "home").stdout == f"removed {tmp_path / 'home'}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_stack_of_a_folder_above_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / ".oa").mkdir()
    below = tmp_path / "checkout"
    below.mkdir()
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("", "libs", "gen"))
    env = {name: value for name, value in os.environ.items() if name != "OA_HOME"} | {"PYTHONPATH": path}
    command = [sys.executable, "-m", "oa_localstack", "clean"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=below, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (0, f"there is no {below / '.oa'}\n"), done.stderr
    assert (tmp_path / ".oa").is_dir()
