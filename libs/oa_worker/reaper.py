"""Ends what a worker leaves running when it is itself killed (`kill -9`): a small process of its own that outlives it.

The worker tells it, over a pipe, which process groups are running. The pipe ends with the worker, however that dies;
then the reaper kills the groups that are left, and ends. Without it a run that was taken over by another worker
could still be at work here.

This file is also the reaper's program: it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import weakref


class Reaper:
    """The worker's end. The process is started with the first group, and ended with this object."""

    def __init__(self) -> None:
        self._pipe = -1

    def watch(self, group: int) -> None:
        """From now on this group ends when the worker does."""
        if self._pipe < 0:
            self._start()
        self._say(f"+{group}\n")

    def forget(self, group: int) -> None:
        """The group has ended."""
        self._say(f"-{group}\n")

    def _say(self, words: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed the reaper: then there is none
            os.write(self._pipe, words.encode())

    def _start(self) -> None:
        reading, self._pipe = os.pipe()  # not inherited by anybody else, so that it ends with us
        try:
            argv = [sys.executable, "-I", "-S", __file__]
            pid = os.posix_spawn(sys.executable, argv, {}, file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)])
        finally:
            os.close(reading)
        weakref.finalize(self, _end, self._pipe, pid)


def _end(pipe: int, pid: int) -> None:
    os.close(pipe)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def main() -> None:
    """The reaper itself."""
    os.setsid()  # what is sent to the worker's group or terminal is not for us
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups = set[int]()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
