"""The first steps of a child: tie it to its parent, become its user, and turn into its program.

`spawn` runs this as a file, not imported: `python -I -S launch.py SIGNAL PARENT_PID UID GID PROGRAM ARGUMENTS…`, where
UID and GID of -1 mean "keep the user". It is a program and not a `preexec_fn`, because Python code can't run safely
between fork and exec in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_STATUS_NOT_STARTED = 127


def main(arguments: list[str]) -> None:
    """Become the program, or end with status 127 and a line that says why. Never returns."""
    tie(*map(int, arguments[:4]))
    program = arguments[4:]
    try:
        os.execv(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{program[0]} can't be started: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(_STATUS_NOT_STARTED)


def tie(death_signal: int, parent_pid: int, uid: int, gid: int) -> None:
    """Become this user, and be sent `death_signal` when the parent dies; end with status 127 if it is dead already."""
    if uid != -1:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user: the kernel forgets the setting when credentials change (prctl(2)).
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent_pid:  # the parent died before the setting took effect
        os._exit(_STATUS_NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
