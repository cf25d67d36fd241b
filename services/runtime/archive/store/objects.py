"""The stores of the archive's objects: a directory, or a bucket of an S3-compatible store.

An object is either whole or absent. It is durable when `put` returns: in a directory by fsync and rename, in a bucket
because the bucket promises it. A process that is killed midway leaves no object: in a directory it leaves a file in
`.staging`, which a later `put` removes; in a bucket it leaves parts of an upload, which the bucket's rule for
unfinished uploads removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from oa_base.refusal import Refusal
from oa_platform.system.files import open_regular
from services.runtime.archive.app.archive import ObjectMissing, Objects
from services.runtime.archive.app.spool import Spool

if TYPE_CHECKING:
    from obstore.store import RetryConfig, S3Store

S3_SCHEME = "s3://"
MULTIPART_BYTES = 8 << 20
"""Objects up to this size go to and come from a bucket in one request, larger ones in parts of this size: the time
limit of a request is meant for this much."""
STAGING = ".staging"
"""A directory's folder for files being written; in the same file system, so that a rename makes one an object."""
STAGING_KEPT_S = 3600
"""A file there that nobody has written to for this long was left by a process that was killed."""
_PIECE_BYTES = 1 << 20
_RETRY_AFTER_MS = 1000
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
# What opening a path says if there is no file: nothing, or a folder, FIFO, socket, device or endless link.
_NO_OBJECT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.ELOOP})
_NO_BUCKET = "<Code>NoSuchBucket</Code>"


def open_objects(url: str) -> Objects:
    """The objects at a directory's path, or at "s3://bucket/prefix". Raises Refusal invalid_setting."""
    if url.startswith(S3_SCHEME):
        return S3Objects.at(url)
    return DirectoryObjects(Path(url))


class DirectoryObjects:
    """Objects as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, name: str, data: Spool) -> None:
        """Store an object, replacing one with this name. Raises Refusal unavailable."""
        try:
            await asyncio.to_thread(self._put, self._folder / name, data)
        except OSError as error:
            raise _away(error) from error

    async def get(self, name: str) -> AsyncIterator[bytes]:
        """The object in pieces. Raises ObjectMissing, Refusal unavailable."""
        try:
            with contextlib.closing(await asyncio.to_thread(open_regular, self._folder / name)) as file:
                while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                    yield piece
        except OSError as error:
            # If the folder itself is missing, nothing is known of the object: its disk may be away.
            if error.errno in _NO_OBJECT and self._folder.is_dir():
                raise ObjectMissing from None
            raise _away(error) from error

    def _put(self, path: Path, data: Spool) -> None:
        self._make_folders(path.parent)
        descriptor, staging = self._stage()
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in data.pieces():
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            Path(staging).replace(path)
        except BaseException:
            Path(staging).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def _stage(self) -> tuple[int, str]:
        """Create a new file to write to, and remove those that were left behind."""
        folder = self._folder / STAGING
        self._make_folders(folder)
        descriptor, path = tempfile.mkstemp(dir=folder)
        # By the clock of the disk, which may be another machine's.
        written_before = os.fstat(descriptor).st_mtime - STAGING_KEPT_S
        for other in folder.iterdir():
            # Another replica may have renamed or removed it meanwhile, and a file that can't be removed does no harm.
            with contextlib.suppress(OSError):
                if other.stat().st_mtime < written_before:
                    other.unlink()
        return descriptor, path

    def _make_folders(self, folder: Path) -> None:
        """Make a folder, with those above it: each is durable when the one above it is synced."""
        if not folder.is_dir():
            self._make_folders(folder.parent)
            folder.mkdir(exist_ok=True)
            _sync_folder(folder.parent)


class S3Objects:
    """Objects in a bucket. Credentials, region and endpoint come from the usual AWS_… variables."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    @classmethod
    def at(cls, url: str) -> S3Objects:
        """The objects at "s3://bucket/prefix". Raises Refusal invalid_setting."""
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        bucket, _, prefix = url.removeprefix(S3_SCHEME).partition("/")
        try:
            return cls(S3Store(bucket, prefix=prefix.strip("/") or None, retry_config=_RETRIES))
        except (BaseError, ValueError) as error:
            text = f"OA_ARCHIVE_URL can't be used ({type(error).__name__}); name a bucket, and set its AWS_ variables"
            raise Refusal("invalid_setting", text, field="OA_ARCHIVE_URL") from None

    async def put(self, name: str, data: Spool) -> None:
        """Store an object, replacing one with this name. Raises Refusal unavailable."""
        from obstore.exceptions import BaseError

        try:
            if data.size <= MULTIPART_BYTES:
                await self._store.put_async(name, data.read(0, data.size), use_multipart=False)
            else:
                await self._store.put_async(name, data.pieces(), chunk_size=MULTIPART_BYTES)
        except (BaseError, OSError) as error:
            raise _away(error) from error

    async def get(self, name: str) -> AsyncIterator[bytes]:
        """The object in pieces. Raises ObjectMissing, Refusal unavailable."""
        from obstore.exceptions import BaseError

        try:
            whole = await self._store.get_async(name)
            size, taken = whole.meta["size"], 0
            async for piece in whole.stream(_PIECE_BYTES):
                yield bytes(piece)
                taken += len(piece)
                if taken >= MULTIPART_BYTES:
                    break
            for start in range(taken, size, MULTIPART_BYTES):
                yield bytes(
                    await self._store.get_range_async(name, start=start, end=min(start + MULTIPART_BYTES, size))
                )
        except FileNotFoundError as error:
            # Without its bucket, nothing is known of the object: a setting has to be corrected, nothing is lost.
            raise (_away(error) if _NO_BUCKET in str(error) else ObjectMissing()) from None
        except (BaseError, OSError) as error:
            raise _away(error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _away(error: Exception) -> Refusal:
    """A refusal without the error's text, which may name hosts and paths. The system's name of an error, such as ENOSPC
    or EROFS, tells a full disk from one that is read-only."""
    number = error.errno if isinstance(error, OSError) and error.errno else 0
    kind = errno.errorcode.get(number, type(error).__name__)
    text = f"the archive can't be reached now ({kind}); try again"
    return Refusal("unavailable", text, retry_after_ms=_RETRY_AFTER_MS)
