"""Fail a session whose tests leave files in the folder for temporary files; loaded from the root `conftest.py`.

The session has a folder of its own for them, which the programs that tests start inherit (`TMPDIR`). It is removed at
the end. pytest's `tmp_path` is elsewhere: pytest keeps the last ones for whoever looks into a failure.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

from oa_testing.temporary import SHARED, shared_temporary

PREFIX = "oa-tests-"
_FOLDER = pytest.StashKey[Path]()
_LEFT = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the session its folder. Workers of xdist have that of their controller."""
    if hasattr(config, "workerinput"):
        return
    shared = shared_temporary()
    _remove_stale(shared)
    os.environ[SHARED] = str(shared)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(shared))
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=shared))
    folder.chmod(0o1777)  # as the folder that it stands for: programs of tests may run as another user
    config.stash[_FOLDER] = folder
    _use(folder)


def _use(folder: Path) -> None:
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


def _remove_stale(shared: Path) -> None:
    """Remove the folders of sessions that were killed."""
    for stale in shared.glob(f"{PREFIX}*-*"):
        pid = stale.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(stale, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look what is left, when all workers have ended."""
    folder = session.config.stash.get(_FOLDER, None)
    left = sorted(path.name for path in folder.iterdir()) if folder is not None else []
    session.config.stash[_LEFT] = left
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what is left."""
    if left := config.stash.get(_LEFT, []):
        terminalreporter.section("left in the folder for temporary files", red=True)
        terminalreporter.write_line("\n".join(left))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder."""
    if (folder := config.stash.get(_FOLDER, None)) is not None:
        _use(shared_temporary())
        shutil.rmtree(folder, ignore_errors=True)
