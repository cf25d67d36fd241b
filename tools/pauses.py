"""Run a command and now and then stop all processes below it a moment, as if the machine swapped, slept or was moved.

    python -m tools.pauses --seed 1 -- tools/run_tests.sh -k cursor      (`make pauses SEED=1 ARGS="-k cursor"`)

A test that assumes that two of its steps happen within a second of each other fails here. The same seed makes the same
pauses. The exit status is the command's.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

BETWEEN_S = (0.2, 2.4)
"""Minimum and maximum time between two pauses."""
PAUSE_S = (0.5, 1.6)
"""Minimum and maximum pause."""
_AT_REST = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE})


def run(command: list[str], seed: int) -> int:
    """Run a command to its end, with pauses. Return its exit status."""
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
    """Stop all processes below `pid` for the block. Processes that a test itself has stopped stay stopped after it."""
    stopped: list[psutil.Process] = []
    try:
        for process in _below(pid):
            with suppress(psutil.Error):  # it has ended, or belongs to another user
                if process.status() not in _AT_REST:
                    process.suspend()
                    stopped.append(process)
        yield
    finally:
        for process in reversed(stopped):
            with suppress(psutil.Error):
                process.resume()


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def main() -> int:
    """Entry point of `python -m tools.pauses`."""
    parser = argparse.ArgumentParser(description="Run a command whose processes stand still now and then.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    return run(arguments.command, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
