"""Start a child that cannot outlive us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from oa_localstack.account import Account

_LAUNCHER = Path(__file__).with_name("launch.py")


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: IO[bytes],
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `argv` (its program as an absolute path), both outputs into `log`, as `account`.

    On Linux the kernel sends it `death_signal` when the thread that called us ends, so call from one that lives as
    long as the child should: the main one. Elsewhere a killed supervisor's children are found by the next one.
    A session of its own keeps the terminal's Ctrl-C from reaching the child before its supervisor does.
    """
    account = account or Account()
    linux = sys.platform == "linux"
    return subprocess.Popen(
        _tied(argv, account, death_signal) if linux else list(argv),
        env=dict(env),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **({} if linux else account.spawn_options()),
    )


def _tied(argv: Sequence[str], account: Account, death_signal: signal.Signals) -> list[str]:
    uid = -1 if account.uid is None else account.uid
    gid = -1 if account.gid is None else account.gid
    ties = [str(number) for number in (int(death_signal), os.getpid(), uid, gid)]
    return [sys.executable, "-I", "-S", str(_LAUNCHER), *ties, *argv]


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
