"""Where the data of a local stack lies if the user of Postgres can't enter the stack's folder, and whose it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
from pathlib import Path

from oa_base.refusal import Refusal
from oa_localstack.processes.account import Account

OUTSIDE = Path("/var/lib/openagents")
"""Where programs keep their state; nothing cleans it. It is used only by root, who can create it."""
CLEANED = (Path("/var/tmp"), Path("/tmp"))
"""Folders that systems clean by age or at a reboot. Earlier releases put data below the first."""
_PREFIX = "openagents-data-"
_MARKER = "postgres-cluster"


def data_root(home: Path, account: Account, *, forget: bool = False) -> Path:
    """The directory for Postgres: `home/postgres`, or one that `account` can reach and `home/postgres` links to.

    Only root can enter a checkout below `/root`, and we don't change the permissions of directories that aren't ours.
    In this case the data lies in OUTSIDE, and `remove_home` follows the link. A link whose target is gone means that
    the data is gone: raises Refusal(start_failed), unless `forget`.
    """
    home.mkdir(parents=True, exist_ok=True)
    link = home / "postgres"
    if link.is_symlink():
        _move_to_safety(link)
        if not link.exists():
            if not forget:
                raise lost(f"a database in {link.readlink()}", "nothing is there")
            link.unlink()
    if link.exists():
        root = link.resolve()
        if forget:
            _put_aside(root / "data")
        return root
    if account.uid is not None and home.stat().st_uid == os.geteuid():
        home.chmod(home.stat().st_mode | 0o011)  # ours to open, for passing through only
    if account.uid is None or account.passes(home):
        link.mkdir()
        return link
    outside = _outside(home, account)
    link.symlink_to(outside)
    return outside


def remove_home(home: Path) -> None:
    """Remove a stopped stack's folder, and its data if that lies elsewhere. Raises OSError for what can't be removed.

    The data goes first: the link in the folder is all that says where it is.
    """
    for folder in (home / "postgres", home):
        if folder.exists() and (folder.is_symlink() or folder == home):
            shutil.rmtree(folder.resolve())
    if home.is_symlink():
        home.unlink()


def marker_path(home: Path) -> Path:
    """The file beside the data, or beside the link to it, that says which database this stack has."""
    return home / _MARKER


def cluster_id(data: Path) -> str:
    """The identifier that initdb gave a database, which keeps it forever; empty if there is no database."""
    try:
        with (data / "global" / "pg_control").open("rb") as control:
            return str(struct.unpack("=Q", control.read(8))[0])  # its first field, in every release
    except (OSError, struct.error):
        return ""


def is_cleaned(path: Path) -> bool:
    """Whether the system may clean `path` away."""
    return any(folder in path.parents for folder in CLEANED)


def lost(expected: str, found: str) -> Refusal:
    """The refusal to start anew where a database was."""
    message = (
        f"this stack had {expected}, and {found}; bring it back there, or go on without it: `oa up --forget-data` "
        "starts with what is there, or with an empty database, and removes nothing"
    )
    return Refusal("start_failed", message)


def outside_folder() -> Path:
    """OUTSIDE, which everybody may pass through, whatever the umask is. Raises OSError when it can't be used."""
    OUTSIDE.mkdir(parents=True, exist_ok=True)
    status = OUTSIDE.stat()
    if status.st_uid == os.geteuid():
        OUTSIDE.chmod(status.st_mode | 0o011)
    return OUTSIDE


def _put_aside(data: Path) -> None:
    """Make room where there are only remains of a database, without removing them."""
    if data.exists() and not cluster_id(data):
        data.rename(tempfile.mkdtemp(prefix=f"{data.name}.old-", dir=data.parent))


def _outside(home: Path, account: Account) -> Path:
    try:
        outside = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=outside_folder()))  # a name that nobody can guess
        outside.chmod(0o711)
    except OSError as error:
        raise _no_place(home, f"{OUTSIDE} can't be used ({error.strerror})") from None
    if not account.passes(outside):
        outside.rmdir()
        raise _no_place(home, f"that user can't enter {OUTSIDE} either")
    return outside


def _no_place(home: Path, why: str) -> Refusal:
    message = (
        f"the user that runs Postgres can't enter {home}, and {why}; set OA_HOME to a folder that this user can enter, "
        "or OA_POSTGRES_USER to one who can enter this"
    )
    return Refusal("invalid_setting", message, field="OA_HOME")


def _move_to_safety(link: Path) -> None:
    """Move data that an earlier release put where the system cleans. Data that can't be renamed stays where it is.

    The data keeps its name, so that a move that was interrupted between its two steps is completed.
    """
    old = link.readlink()
    if not (is_cleaned(old) and old.name.startswith(_PREFIX)):
        return
    new = OUTSIDE / old.name
    with contextlib.suppress(OSError):
        if old.exists():
            outside_folder()
            old.rename(new)
        if new.exists():
            staged = link.with_name("postgres.new")
            staged.unlink(missing_ok=True)
            staged.symlink_to(new)
            staged.replace(link)
