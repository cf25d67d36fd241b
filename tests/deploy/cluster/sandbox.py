"""A container without a container runtime: bubblewrap gives it a root of its own, setpriv takes its rights away.

The program is process 1 of its own process table, as a container's is. Its root holds what our images hold, in the
same places: CPython, the packages, and the code in /app/code.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oa_localstack.processes.child import last_lines, send_signal
from tests.house.files import REPO

TOOLS = ("bwrap", "setpriv", "kubectl")
_POLL_S = 0.05
_IMAGE = {
    "PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin",
    "PYTHONPATH": "/app/code:/app/code/libs:/app/code/gen:/app/packages",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
"""The environment of an image, as deploy/images/Containerfile has it, for the folders of a checkout."""


def cannot_run() -> str:
    """Why there can be no sandbox here; empty when there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed: the manifests are not executed"
    return "" if os.geteuid() == 0 else "only root can give a pod its user and ports: the manifests are not executed"


@dataclass(frozen=True)
class Mount:
    """A folder or file of ours at a place in the container."""

    source: Path
    path: str
    writable: bool = False


@dataclass(frozen=True)
class User:
    """Whom a container runs as."""

    uid: int
    gid: int
    group: int


class Sandbox:
    """One running container."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self._process = process
        self.pid = pid
        """Of the program, as its starter sees it."""
        self.log = log

    @property
    def exit_status(self) -> int | None:
        """How the program ended; None while it runs."""
        return self._process.poll()

    @property
    def said(self) -> str:
        """The end of its log."""
        return last_lines(self.log)

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, and SIGKILL when that takes longer than `grace_s`; the exit status."""
        if self.exit_status is None:
            send_signal(self.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                return await self.ended()
        return self.kill()

    def kill(self) -> int:
        """SIGKILL; the exit status."""
        if self.exit_status is None:
            send_signal(self.pid, signal.SIGKILL)
        return self._process.wait()

    async def ended(self) -> int:
        """Wait for the end; the exit status."""
        # No thread waits: there are few of them, and many pods stop at a time.
        while (status := self.exit_status) is None:
            await asyncio.sleep(_POLL_S)
        return status


def start(
    command: Sequence[str], environment: Mapping[str, str], mounts: Sequence[Mount], user: User, log: Path
) -> Sandbox:
    """Start a program in a sandbox, which ends with this process at the latest."""
    reading, writing = os.pipe()
    words = [*_root(mounts), "--info-fd", str(writing), "--clearenv"]
    for name, value in {**_IMAGE, **environment}.items():
        words += ["--setenv", name, value]
    words += ["/usr/bin/setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", f"--groups={user.group}"]
    words += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", *command]
    with log.open("ab") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    assert text, last_lines(log)
    pid = json.loads(text)["child-pid"]
    _end_with_us(pid)
    return Sandbox(process, pid, log)


def _end_with_us(pid: int) -> None:
    # bubblewrap's own way ends with the first change of user, and setpriv makes one.
    told = _watchdog().stdin
    assert told is not None
    told.write(f"{pid}\n".encode("ascii"))
    told.flush()


@functools.cache
def _watchdog() -> subprocess.Popen[bytes]:
    """One for this process. In a session of its own, so that no signal to this one's group ends it first."""
    command = [sys.executable, "-I", str(Path(__file__).with_name("watchdog.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(process.communicate)
    return process


def _root(mounts: Sequence[Mount]) -> list[str]:
    words = ["bwrap", "--unshare-pid", "--as-pid-1", "--unshare-ipc", "--unshare-uts"]
    words += ["--new-session", "--tmpfs", "/", "--proc", "/proc", "--dev", "/dev", "--ro-bind", "/usr", "/usr"]
    for top in ("bin", "lib", "lib64"):
        words += ["--symlink", f"usr/{top}", f"/{top}"]
    image = [
        Mount(Path(sys.base_prefix), sys.base_prefix),
        Mount(Path(sysconfig.get_path("purelib")), "/app/packages"),
        Mount(REPO, "/app/code"),
    ]
    for mount in (*image, *mounts):
        # The directories above, which everybody may enter; those that are there stay as they are.
        for parent in reversed(Path(mount.path).parents[:-1]):
            words += [] if parent == Path("/usr") else ["--perms", "0755", "--dir", str(parent)]
        words += ["--bind" if mount.writable else "--ro-bind", str(mount.source), mount.path]
    return [*words, "--remount-ro", "/", "--chdir", "/"]
