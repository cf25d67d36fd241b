"""Where the data of a local stack lies when its own folder is closed to the user of Postgres, and whose it is."""

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
"""Where programs keep their state; nothing cleans it. Only root is ever sent here, and root can make it."""
CLEANED = (Path("/var/tmp"), Path("/tmp"))
"""What systems clean by age or at a reboot; earlier releases put data below the first."""
_PREFIX = "openagents-data-"
_MARKER = "postgres-cluster"


def data_root(home: Path, account: Account, *, forget: bool = False) -> Path:
    """The directory for Postgres below `home`, or `home/postgres` as a link to one that `account` can reach.

    A checkout below `/root` can't be entered by anybody but root, and permissions of directories that aren't
    ours stay as they are: then the data lies in OUTSIDE, and `remove_home` follows the link. A link whose end is gone
    means that the data is: Refusal(start_failed), unless that is to be forgotten.
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
        return link.resolve()
    if account.uid is not None and home.stat().st_uid == os.geteuid():
        home.chmod(home.stat().st_mode | 0o011)  # ours to open, for passing through only
    if account.uid is None or account.passes(home):
        link.mkdir()
        return link
    outside = _outside(home, account)
    link.symlink_to(outside)
    return outside


def remove_home(home: Path) -> None:
    """Remove a stopped stack's folder, with data that lies elsewhere."""
    link = home / "postgres"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def marker_path(home: Path) -> Path:
    """The file beside the data, or beside the link to it, that says which database this stack has."""
    return home / _MARKER


def cluster_id(data: Path) -> str:
    """The identifier that initdb gave a database and that it keeps for ever; empty where there is none."""
    try:
        with (data / "global" / "pg_control").open("rb") as control:
            return str(struct.unpack("=Q", control.read(8))[0])  # its first field, in every release
    except (OSError, struct.error):
        return ""


def is_cleaned(path: Path) -> bool:
    """Whether the system may clean it away."""
    return any(folder in path.parents for folder in CLEANED)


def lost(expected: str, found: str) -> Refusal:
    """The refusal to begin anew where something was."""
    message = (
        f"this stack had {expected}, and {found}; bring it back there, or go on without it: `oa up --forget-data` "
        "starts with what is there, or with an empty database, and removes nothing"
    )
    return Refusal("start_failed", message)


def _outside(home: Path, account: Account) -> Path:
    try:
        OUTSIDE.mkdir(mode=0o711, parents=True, exist_ok=True)
        outside = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=OUTSIDE))  # a name that nobody can guess
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
    """Data that an earlier release put where the system cleans is moved by a rename, or else stays where it is.

    It keeps its name, so that a move that was cut off between its two steps is completed.
    """
    old = link.readlink()
    if not (is_cleaned(old) and old.name.startswith(_PREFIX)):
        return
    new = OUTSIDE / old.name
    with contextlib.suppress(OSError):
        if old.exists():
            OUTSIDE.mkdir(mode=0o711, parents=True, exist_ok=True)
            old.rename(new)
        if new.exists():
            staged = link.with_name("postgres.new")
            staged.unlink(missing_ok=True)
            staged.symlink_to(new)
            staged.replace(link)
