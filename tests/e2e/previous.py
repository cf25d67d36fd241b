"""The release before this one, from the history: its code, run beside today's."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from oa_testing.postgres import REPOSITORY
from oa_testing.processes import killed_at_end

ROOTS = ("", "libs", "gen")
_MIGRATIONS = "services/runtime/migrations"


@dataclass(frozen=True)
class Release:
    """The code of a release, in a folder."""

    root: Path

    @property
    def migrations(self) -> Path:
        """Those of the runtime."""
        return self.root / _MIGRATIONS

    @property
    def names(self) -> list[str]:
        """The files of the runtime's migrations."""
        return sorted(path.name for path in self.migrations.glob("*.sql"))

    @property
    def starts_on_what_a_newer_one_expanded(self) -> bool:
        """Whether its start looks for migrations that contract; before, it refused all that it did not know."""
        return any("--contract" in path.read_text("utf-8") for path in self.root.rglob("migrate.py"))

    @property
    def import_path(self) -> str:
        """Where its packages are."""
        return os.pathsep.join(str(self.root / root) for root in ROOTS)

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """What a process of it finds, and nothing of today's code."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OA_")}
        return {**kept, "PYTHONPATH": self.import_path, **own}

    @asynccontextmanager
    async def running(self, own: Mapping[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
        """A runtime process of it; killed at the end if it still runs."""
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "services.runtime", env=self.environment(own), stdout=out, stderr=out
            )
        async with killed_at_end(process):
            yield process


TODAYS = Release(REPOSITORY)


def previous_release(folder: Path) -> Release:
    """The commit before the newest migration of the runtime, in `folder`; skips the test where there is no history."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("there is no git history here: the release before this one is not tried")
    count = len(TODAYS.names)
    for commit in _git("rev-list", "HEAD", "--", f"{_MIGRATIONS}/*.sql").decode().split():
        if not _git("rev-parse", "--verify", "--quiet", f"{commit}^"):
            break
        if len(_git("ls-tree", "--name-only", f"{commit}^", f"{_MIGRATIONS}/").split()) < count:
            return _unpacked(f"{commit}^", folder)
    pytest.skip("the history begins after the newest migration: the release before this one is not tried")


def _unpacked(commit: str, folder: Path) -> Release:
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, "libs", "services", "gen"))) as archive:
        # CPython has filters from 3.11.4 on, and later ones want one to be named.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return Release(folder)


def _git(*arguments: str) -> bytes:
    """What git says; nothing where it fails."""
    command = ["git", "-c", f"safe.directory={REPOSITORY}", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False, timeout=60).stdout
