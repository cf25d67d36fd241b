"""Which user a child runs as, and what that user can reach.

PostgreSQL refuses to run as root. As root we therefore run it as an unprivileged user, who must be able to reach
the binaries and the data wherever the checkout lies (`/root` is closed to everybody else). As any other user
there is nothing to decide.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oa_base.refusal import Refusal

_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Account:
    """A user to run as; without ids, it is our own user."""

    uid: int | None = None
    gid: int | None = None

    def launched(self, argv: Sequence[str], death_signal: int = 0) -> list[str]:
        """The command that becomes this user and then `argv`, whose program is an absolute path; see `launch`.

        Python could change the user itself, but it would fork to do so, and what gRPC and others do in a fork may crash
        the fork.
        """
        ties = (death_signal, os.getpid(), *((-1, -1) if self.uid is None else (self.uid, self.gid)))
        return [sys.executable, "-I", "-S", str(_LAUNCHER), *map(str, ties), *argv]

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end as this user. Its `stdout` contains both outputs."""
        return subprocess.run(
            self.launched(argv), env=env, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )

    def take(self, path: Path) -> None:
        """Make this user the owner of `path`."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def passes(self, path: Path) -> bool:
        """Whether this user can enter the directory `path`. This asks the kernel and computes nothing from bits."""
        return self._test("-x", path)

    def reads(self, path: Path) -> bool:
        """Whether this user can read `path`."""
        return self._test("-r", path)

    def _test(self, question: str, path: Path) -> bool:
        return self.run(["/bin/sh", "-c", 'test "$1" "$2"', "sh", question, str(path)]).returncode == 0


def postgres_account(name: str = "nobody") -> Account:
    """The account for Postgres: `name` when we are root, else our own user.

    Raises Refusal(invalid_setting) when there is no such user, or it is also root.
    """
    if os.geteuid() != 0:
        return Account()
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        message = f"there is no user {name!r} to run Postgres as; set OA_POSTGRES_USER to an unprivileged user"
        raise Refusal("invalid_setting", message, field="OA_POSTGRES_USER") from None
    if entry.pw_uid == 0:
        message = "root can not run Postgres; set OA_POSTGRES_USER to an unprivileged user"
        raise Refusal("invalid_setting", message, field="OA_POSTGRES_USER")
    return Account(entry.pw_uid, entry.pw_gid)
