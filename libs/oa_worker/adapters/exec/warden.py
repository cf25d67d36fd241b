"""The warden of one command: a small process of its own that starts it, and ends everything that it left running.

On Linux the warden is a subreaper: every process that the command starts stays below the warden, whatever session it
makes, whatever it does to its environment and however often it forks and leaves. So "nothing is left" is exact: the
kernel says so when the warden has no child. The warden can't end processes that another service was asked to start (a
container, a unit of systemd, a job of cron), or processes of users that the worker may not signal. If a command kills
its own warden, the worker notices that and ends what is left of the command's process group.

Elsewhere (macOS) there is only the process group: a process that makes a session of its own outlives its run there.

The warden's standard input is a socket to the worker. The worker sends the order (`Order`), then letters:

    T   SIGTERM to everything
    K   end everything at once; so does the end of the socket, which is what a killed worker leaves

The warden answers in lines: `started PID`, or `refused ERRNO TEXT` and its end; `exited STATUS MILLISECONDS` when the
command itself is over; and last `gone`, or `left N` when N processes could not be ended.

This file is also the warden's program: it imports nothing but the standard library, and only what starts quickly.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import marshal
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable

_PR_SET_CHILD_SUBREAPER = 36
_LENGTH_BYTES = 8
_PAUSE_S = 0.01
"""Pause between looks at processes whose end nobody announces: after SIGKILL, and at a process group."""

Order = tuple[list[bytes], bytes | None, dict[bytes, bytes], bool, float, int | None, bool]
"""Arguments, directory, environment, whether to be a subreaper, for how many seconds to kill, the file descriptor
that is to be the command's standard input (None for an empty one), and whether that is to be its terminal."""


def packed(order: Order) -> bytes:
    """Return the order as it is sent. Both ends are the same interpreter, as `marshal` requires."""
    data = marshal.dumps(order)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


class Family:
    """The command and everything below it: `all_below` the warden, or else the command's process group."""

    def __init__(self, command: int, all_below: bool) -> None:
        self._command = command
        self.all_below = all_below
        self.status: int | None = None
        """How the command itself ended, once it has."""

    def reap(self) -> bool:
        """Take the status of what ended; True when nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return self.all_below or not _group_lives(self._command)
            if pid == 0:
                return False
            if pid == self._command:
                self.status = os.waitstatus_to_exitcode(status)

    def terminate(self) -> None:
        """Send SIGTERM to everything, also to stopped processes. Parents come first: a shell that saw its child end
        before it was told itself would go on with its script, and could end as if nothing had happened."""
        for pid in self._members():
            _signal(pid, signal.SIGTERM)
            _signal(pid, signal.SIGCONT)

    def kill(self, timeout_s: float) -> int:
        """End everything, also processes that fork faster than they could be killed; return how many are left.

        Each round stops all new processes, because a stopped process does not fork; once a round finds nothing new,
        everything is killed. A process that can't be killed (another user's) uses up the time.
        """
        until_s = time.monotonic() + timeout_s
        with contextlib.suppress(OSError):  # where we may: it is a race
            os.nice(-20)
        below = _Below(os.getpid())
        while not self.reap():
            if time.monotonic() >= until_s:
                return len(self._members())
            if self.all_below and below.look(_stop):
                continue
            for pid in below.found if self.all_below else self._members():
                _signal(pid, signal.SIGKILL)
            time.sleep(_PAUSE_S)
            below = _Below(os.getpid())
        return 0

    def _members(self) -> list[int]:
        if not self.all_below:
            return [-self._command]
        below = _Below(os.getpid())
        below.look(lambda pid: None)
        return below.parents_first()


class _Below:
    """The descendants of a process. A second look reads only new processes, and is therefore quick."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._parents: dict[int, int] = {}
        self.found: set[int] = set()

    def look(self, seen: Callable[[int], None]) -> bool:
        """Return whether there are new ones. `seen` gets each at once: a moment later it may have forked and ended."""
        there = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - pathlib starts slowly
        self.found &= there
        before = len(self.found)
        self._parents = {pid: parent for pid, parent in self._parents.items() if pid in there}
        for pid in sorted(there - self._parents.keys(), reverse=True):  # the newest first: those may not live long
            parent = self._parents[pid] = _parent_of(pid)
            if parent == self._root or parent in self.found:
                self.found.add(pid)
                seen(pid)
        while new := {pid for pid, parent in self._parents.items() if parent in self.found} - self.found:
            self.found |= new
            for pid in new:
                seen(pid)
        return len(self.found) > before

    def parents_first(self) -> list[int]:
        """Return the processes that were found, each after its parent."""
        return parents_first({pid: self._parents[pid] for pid in self.found})


def parents_first(parents: dict[int, int]) -> list[int]:
    """Return the processes (pid -> parent), each after its parent.

    They were read one after the other, so a pid may have been reused meanwhile: processes in a cycle come last.
    """
    order: list[int] = []
    generation = {pid for pid, parent in parents.items() if parent not in parents}
    while generation:
        order += sorted(generation)
        generation = {pid for pid, parent in parents.items() if parent in generation}
    return order + sorted(parents.keys() - set(order))


def _parent_of(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
        return int(stat.read().rpartition(b")")[2].split()[1])
    return 0


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _stop(pid: int) -> None:
    _signal(pid, signal.SIGSTOP)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS reports this for a group of zombies
        return False
    return True


def program_of(argv: list[bytes], environment: dict[bytes, bytes]) -> bytes | None:
    """Return the program that a name without a slash stands for: the first one on PATH that may be executed. None
    leaves the choice to the system. Raises FileNotFoundError when there is none of that name.

    By itself, the system reports "permission denied" for a name that is nowhere, if one folder on PATH can't be read.
    """
    if not argv or not argv[0] or b"/" in argv[0]:
        return None
    folders = environment.get(b"PATH", os.fsencode(os.defpath)).split(b":")
    found = [path for folder in folders if os.path.isfile(path := os.path.join(folder, argv[0]))]  # noqa: PTH113, PTH118
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return next((path for path in found if os.access(path, os.X_OK)), found[0])


def become_subreaper() -> bool:
    """Make orphans below us our children; False where the system does not support that."""
    try:
        return os.path.isdir("/proc/self") and ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0  # noqa: PTH112
    except AttributeError:
        return False


def main() -> None:
    """Run the warden."""
    woken = _hear_of_children()
    argv, directory, environment, all_below, kill_timeout_s, stdin, has_terminal = _read_order()
    all_below = all_below and become_subreaper()
    began_s = time.monotonic()
    try:
        command = subprocess.Popen(
            argv,
            executable=program_of(argv, environment),
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            start_new_session=True,
            preexec_fn=_take_terminal if has_terminal else None,  # noqa: PLW1509 - the warden has no threads
        )
    except (OSError, ValueError) as error:
        number = error.errno or 0 if isinstance(error, OSError) else 0
        _say(f"refused {number} {error}")
        return
    if stdin is not None and not has_terminal:
        os.close(stdin)  # so that its writer notices when the command reads no more
    _let_go_of_outputs()
    _say(f"started {command.pid}")
    _watch(Family(command.pid, all_below), woken, began_s, kill_timeout_s, stdin if has_terminal else None)


def _take_terminal() -> None:
    """Make standard input the controlling terminal of the command's process, which leads a session by now."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _watch(family: Family, woken: int, began_s: float, kill_timeout_s: float, terminal: int | None) -> None:
    """Watch until nothing is left, or what is left can't be ended. The terminal is kept open while the command lives:
    a terminal that nobody has open looks like the end of its output, although the command may open it again as
    /dev/tty."""
    left: int | None = None
    told = False
    while True:
        over = family.reap()
        if family.status is not None and not told:
            _say(f"exited {family.status} {round((time.monotonic() - began_s) * 1000)}")
            told = True
            if terminal is not None:
                os.close(terminal)
        if over or left is not None:
            return _say("gone" if over else f"left {left}")
        look_again_s = _PAUSE_S if told and not family.all_below else None  # nobody tells us of a group's end
        ready, _, _ = select.select([0, woken], [], [], look_again_s)
        if woken in ready:
            os.read(woken, 4096)
        if 0 in ready:
            if _received() == b"T":
                family.terminate()
            else:
                left = family.kill(kill_timeout_s)


def _received() -> bytes:
    """Return the worker's letter: of several at once the last one, and `K` at the socket's end."""
    try:
        return os.read(0, 64)[-1:] or b"K"
    except OSError:
        return b"K"


def _read_order() -> Order:
    data = _read(int.from_bytes(_read(_LENGTH_BYTES), "big"))
    order: Order = marshal.loads(data)
    return order


def _read(count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            sys.exit(0)  # the worker has changed its mind, or is gone
        data += more
    return bytes(data)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the worker is gone
        os.write(0, line.replace("\n", " ").encode() + b"\n")


def _hear_of_children() -> int:
    """Return a pipe that gets a byte when a child ends. Signals to the worker's terminal or group are not for us.

    They get a handler, because a signal that is ignored here would be ignored by the command too. Signals that the
    worker ignores (`nohup`) are still ignored by its commands.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD:
            signal.signal(number, lambda *_: None)
    return reading


def _let_go_of_outputs() -> None:
    """Let go of the outputs, which the command has now, so that they end with the last of its processes."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    main()
