"""Files that are whole or not there, and files that are held by one process at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO


def staged(path: Path, data: bytes) -> Path:
    """A new file beside `path` with `data`, for the owner alone and on the disk; give it its name with `replace`."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


@dataclass
class Lock:
    """Held through a file; the kernel drops it with its holder, however that one dies."""

    path: Path
    _file: IO[str] | None = field(default=None, init=False, repr=False)

    @property
    def held(self) -> bool:
        """Whether we hold it."""
        return self._file is not None

    def take(self) -> bool:
        """Whether it could be taken; it can where we hold it already."""
        if self._file is None:
            file = self.path.open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._file = file
        return True

    def release(self) -> None:
        """Let go, if we hold it."""
        if self._file is not None:
            self._file.close()
            self._file = None
