"""Locks of the Codex threads that are at a turn: a locked file for each, in a folder of ours in CODEX_HOME.

All workers of a machine that share the home see it. The kernel keeps the lock for the processes that have the file
open, and releases it when the last of them is gone, however it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from oa_worker.agents.failures import AgentFailure

_FOLDER = "openagents-turns"


class TurnLock:
    """Take it with `take`, hand `fd` to the process that lives as long as the turn, and `close` it in any case."""

    def __init__(self, fd: int, path: Path, named: bool) -> None:
        self.fd = fd
        self._path = path
        self._named = named

    @classmethod
    def take(cls, home: Path, thread_id: str) -> TurnLock:
        """Lock the thread; with an empty id, a thread that `name` will name later. Raises AgentFailure."""
        try:
            return cls._take(home / _FOLDER, thread_id)
        except BlockingIOError:
            message = f"the Codex thread {thread_id} is at another turn; send that turn an input, or wait for its end"
            raise AgentFailure("codex_thread_busy", message) from None
        except OSError as error:
            message = f"the thread can't be locked in CODEX_HOME ({error.strerror}); see to that folder's rights"
            raise AgentFailure("codex_not_started", message) from None

    @classmethod
    def _take(cls, folder: Path, thread_id: str) -> TurnLock:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if thread_id:
            path = folder / _file_name(thread_id)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        else:
            fd, made = tempfile.mkstemp(prefix="new-", dir=folder)
            path = Path(made)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, path, named=bool(thread_id))

    def name(self, thread_id: str) -> None:
        """Give the thread its id. Nobody can have locked it before, because nobody knew it."""
        if not self._named:
            self._path.replace(self._path.with_name(_file_name(thread_id)))
            self._named = True

    def close(self) -> None:
        """Release the lock. A thread's file stays: a process that had it open would lock a file that nobody sees."""
        if not self._named:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self.fd)


def codex_home(environment: Mapping[str, str], folder: str) -> Path:
    """Return where Codex has its threads when it is started with this environment in this folder."""
    named = environment.get("CODEX_HOME")
    return Path(folder, named) if named else Path(environment.get("HOME") or Path.home(), ".codex")


def _file_name(thread_id: str) -> str:
    """Return the name of a thread's file. An id may come from anybody, so it is not used as a path."""
    return f"{hashlib.sha256(thread_id.encode('utf-8', 'surrogatepass')).hexdigest()}.lock"
