"""Files that are written as a whole or not at all, files that one process at a time holds, and logs that stay small."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO


def replace(path: Path, data: bytes) -> None:
    """Replace the content of `path`, as a whole or not at all, readable only by its owner and synced to disk."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def bound(log: Path, max_bytes: int) -> None:
    """If a log is larger than `max_bytes`, move what is in it to `<log>.1`, in the place of what is there.

    Its writer, which appends, goes on meanwhile. What it writes in the moment between the last read and the truncation
    is lost.
    """
    if not log.exists() or log.stat().st_size <= max_bytes:
        return
    copy = log.with_name(f"{log.name}.1")
    copy.unlink(missing_ok=True)
    with log.open("rb+") as file, copy.open("wb", buffering=0) as aside:
        try:
            shutil.copyfileobj(file, aside)
        finally:  # on a full disk, less is kept
            file.truncate(0)


def is_held(path: Path) -> bool:
    """Whether a process has the file locked (`hold`)."""
    if not path.exists():
        return False
    file = hold(path)
    if file is not None:
        file.close()
    return file is None


def hold(path: Path) -> IO[str] | None:
    """The file, locked until it is closed; None when another process has it. The lock ends with its process."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
