"""A file without a name, for data too large for memory: written once, hashed on the way, then read in pieces."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from oa_base.refusal import Refusal

_READ_BYTES = 256 * 1024


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"the temporary disk can't take the artifact ({error.strerror}); try again once it has room"
        raise Refusal("unavailable", text) from error


class Spool:
    """Bytes on disk. Nobody else sees them. They are gone with the last reference to the spool, or with the process.

    Writing and reading block: call them in a thread.
    """

    def __init__(self, max_bytes: int) -> None:
        """Raises Refusal `unavailable` if the temporary disk or the process has no room for it."""
        with _room():
            descriptor, path = tempfile.mkstemp(prefix="oa-spool-")
            os.unlink(path)  # noqa: PTH108 - it never was a path to anybody
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append bytes. Raises Refusal limit_reached past the maximum of bytes, `unavailable` on a full disk."""
        if self.size + len(data) > self._max_bytes:
            text = f"the artifact is larger than {self._max_bytes} bytes, the maximum here; read the run's events"
            raise Refusal("limit_reached", text)
        rest = memoryview(data)
        with _room():
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._digest.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> bytes:
        """SHA-256 of what was written."""
        return self._digest.digest()

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset` on; fewer at the end."""
        return os.pread(self._descriptor, count, offset)

    def pieces(self) -> Iterator[bytes]:
        """The whole content, in pieces."""
        offset = 0
        while piece := self.read(offset, _READ_BYTES):
            offset += len(piece)
            yield piece

    def lines(self, max_line_bytes: int) -> Iterator[bytes]:
        """The whole content, in lines with their ends; of a line that is too long, only enough to show that."""
        rest = b""
        for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" for line in lines)
            if len(rest) > max_line_bytes:
                break
        if rest:
            yield rest
