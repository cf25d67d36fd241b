"""Where the data of a local stack lies when its own folder is closed to the user that runs Postgres."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from oa_localstack.account import Account

_OUTSIDE = Path("/var/tmp")
"""Outlives a reboot, open to all; the directory below it gets an unguessable name from mkdtemp."""


def data_root(home: Path, account: Account) -> Path:
    """The directory for Postgres below `home`, or `home/postgres` as a link to one that `account` can reach.

    A checkout below `/root` can't be entered by anybody but root, and permissions of directories that aren't
    ours stay as they are: then the data lies in `/var/tmp`, and `remove_home` follows the link.
    """
    home.mkdir(parents=True, exist_ok=True)
    link = home / "postgres"
    if link.is_symlink() and not link.exists():
        link.unlink()  # its target is gone (`/var/tmp` was cleaned), and the data with it
    if link.exists():
        return link.resolve()
    if account.uid is not None and home.stat().st_uid == os.geteuid():
        home.chmod(home.stat().st_mode | 0o011)  # ours to open, for passing through only
    if account.uid is None or account.passes(home):
        link.mkdir()
        return link
    outside = Path(tempfile.mkdtemp(prefix="openagents-data-", dir=_OUTSIDE))
    outside.chmod(0o711)
    link.symlink_to(outside)
    return outside


def remove_home(home: Path) -> None:
    """Remove a stopped stack's folder, with data that lies elsewhere."""
    link = home / "postgres"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
