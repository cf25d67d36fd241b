"""Start a child that cannot outlive us, and find what outlived a predecessor all the same."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from oa_localstack.account import Account

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec only the call itself may happen.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(death_signal: signal.Signals, parent_pid: int) -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel send `death_signal` to the child when the thread that started it ends.

    Linux only; elsewhere None, and a killed supervisor's children are found by the next one. Must be called by
    the child after it changed its user: the kernel forgets the setting when credentials change (`prctl(2)`).
    """
    libc = _LIBC
    if libc is None:
        return None

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent_pid:  # the parent died before the setting took hold
            os._exit(1)

    return arrange


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: IO[bytes],
    account: Account | None = None,
    cwd: Path = Path("/"),
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, both outputs into `log`.

    Call it from the thread that lives as long as the stack (the main one): the child dies with that thread.
    A session of its own keeps the terminal's Ctrl-C from reaching the children before their supervisor does.
    """
    options = account.spawn_options() if account else {}
    return subprocess.Popen(
        list(argv),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent(death_signal, os.getpid()),  # noqa: PLW1509 - it makes two system calls, no more
        **options,
    )


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
