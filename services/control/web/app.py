"""The releases on this machine: verified before they are served."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from oa_base.refusal import Refusal
from oa_platform.system.files import open_regular
from services.control.web.domain import MANIFEST, File, ManifestError, is_hashed, is_packed, read_manifest
from services.control.web.limits import MAX_MANIFEST_BYTES

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Release:
    """A folder, with exactly the files that its manifest names."""

    folder: Path
    files: Mapping[str, File]


class Releases:
    """The present release and earlier ones. Open pages still ask for content-named files of the earlier ones."""

    def __init__(self, present: Path, before: Sequence[Path] = ()) -> None:
        self._folders = (present, *before)
        self._verified: Sequence[Release] = ()
        self._problem = "the web shell was not looked at yet"

    async def verify(self) -> None:
        """Verify every byte. If that fails, nothing is served, and `check` says why."""
        try:
            self._verified = await asyncio.to_thread(lambda: [verified(folder) for folder in self._folders])
        except ManifestError as error:
            self._problem = str(error)
            _log.error("web_shell_refused", problem=self._problem)

    async def check(self) -> None:
        """Readiness: raises Refusal `unavailable` unless all releases are exactly what their manifests say."""
        if not self._verified:
            raise Refusal("unavailable", f"{self._problem}; build the release again, and start again")

    @property
    def present(self) -> Release:
        """The present release. Raises Refusal `unavailable` when it was not verified."""
        if not self._verified:
            raise Refusal("unavailable", "the web shell is not what its manifest says; its operator has to mend it")
        return self._verified[0]

    def keeping(self, name: str) -> Release | None:
        """The newest release with a content-named file; None for other files, and for files that no release has."""
        if not is_hashed(name):
            return None
        return next((one for one in self._verified if name in one.files and not is_packed(name, one.files)), None)


def verified(folder: Path) -> Release:
    """The release in a folder. Raises ManifestError for an extra file, a missing one, or one with other content."""
    try:
        with open_regular(folder / MANIFEST) as manifest:
            content = manifest.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes")
        files = read_manifest(content)
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST}
        if more := sorted(there - set(files)):
            raise ManifestError(f"{folder} has {len(more)} files that {MANIFEST} does not name: {more[0]}")
        for file in files.values():
            _verify(folder, file)
    except OSError as error:
        raise ManifestError(f"{error.filename or folder} can't be read ({error.strerror})") from None
    return Release(folder, files)


def _verify(folder: Path, file: File) -> None:
    path = folder / file.name
    if path.resolve() != folder.resolve() / file.name:
        raise ManifestError(f"{path} is a link; put the file itself there")
    with open_regular(path) as content:
        # A file of another size is not read: it may be very large.
        same = os.fstat(content.fileno()).st_size == file.size
        if not same or hashlib.file_digest(content, "sha256").hexdigest() != file.sha256 or content.tell() != file.size:
            raise ManifestError(f"{path} is not what {MANIFEST} says")
