"""Files that are whole or not there, and files that are held by one process at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO


def replace(path: Path, data: bytes) -> None:
    """Give `path` this content, whole or not at all, for the owner alone and on the disk."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def hold(path: Path) -> IO[str] | None:
    """The file, locked until it is closed; None when another has it. The kernel lets go with whoever holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
