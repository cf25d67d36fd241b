"""Run a command, and now and then stop all processes below it for a moment: a machine that swaps, sleeps or is moved.

    python -m tools.pauses --seed 1 -- make test      (`make pauses ARGS="1 -k cursor"`)

Whatever assumes that two of its steps come within a second of each other fails here. The same seed pauses at the same
distances. Exit status: the command's.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

BETWEEN_S = (0.2, 2.4)
"""Shortest and longest time between two pauses."""
PAUSE_S = (0.5, 1.6)
"""Shortest and longest pause."""
_AT_REST = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE})


def run(command: list[str], seed: int) -> int:
    """Run it to its end, with pauses; its exit status."""
    chance = random.Random(seed)
    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait(chance.uniform(*BETWEEN_S))
        except subprocess.TimeoutExpired:
            with stopped_below(child.pid):
                time.sleep(chance.uniform(*PAUSE_S))


@contextmanager
def stopped_below(pid: int) -> Iterator[None]:
    """All processes below one stand still for the block. Those that a test has stopped itself stay stopped after it."""
    stopped: list[int] = []
    try:
        stopped.extend(each.pid for each in _below(pid) if _signalled(each.pid, signal.SIGSTOP))
        yield
    finally:
        for each in reversed(stopped):
            _signalled(each, signal.SIGCONT)


def _below(pid: int) -> Iterator[psutil.Process]:
    try:
        for process in psutil.Process(pid).children(recursive=True):
            if process.status() not in _AT_REST:
                yield process
    except psutil.NoSuchProcess:  # it ended meanwhile
        return


def _signalled(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> int:
    """Entry of `python -m tools.pauses`."""
    parser = argparse.ArgumentParser(description="Run a command whose processes stand still now and then.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    return run(arguments.command, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
