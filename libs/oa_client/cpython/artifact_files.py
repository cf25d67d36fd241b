"""Replay artifacts as files: replaced whole, read line by line, and fetched from the site."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from oa_client.client import Client
from oa_client.proofs.artifacts import read_artifact_lines
from oa_runlog.proof.verify import VerifiedReplay


@dataclass(frozen=True)
class Fetched:
    """An artifact of the site in a file that is removed afterwards, unless it is moved away."""

    path: Path
    size_bytes: int
    replay: VerifiedReplay

    def keep_as(self, file: Path) -> None:
        """Move it to `file`. Raises OSError that names `file`."""
        with _blamed(file):
            self.path.replace(file)


@asynccontextmanager
async def fetched_artifact(client: Client, run_id: str, beside: Path | None = None) -> AsyncIterator[Fetched]:
    """The artifact of a run, checked with the pinned keys, in a file beside this one (default: a temporary file).

    Raises Refusal: those of `oa_client.proofs.run_proofs.RunProofs.artifact`. Raises OSError that names `beside`.
    """
    with staging(beside) as (path, opened):
        artifact = await client.proofs.artifact(run_id, opened)
        opened.close()
        yield Fetched(path, artifact.size_bytes, artifact.replay)


@contextmanager
def staging(beside: Path | None) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file to write and read, which is removed at the end of the block unless it was moved away.

    It is in the folder of `beside`, or in that for temporary files. Raises OSError that names `beside`.
    """
    with _blamed(beside):
        descriptor, name = tempfile.mkstemp(dir=beside.parent if beside else None, prefix=".oa-replay-")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as opened:
            yield path, opened
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def scratch() -> Iterator[BinaryIO]:
    """A temporary file for an artifact that is only checked."""
    with staging(None) as (_, opened):
        yield opened


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A new file to write, which takes the place of `file` if the block ends well. Raises OSError that names `file`."""
    with staging(file) as (path, opened):
        yield opened
        with _blamed(file):
            opened.close()
            path.replace(file)


def write_artifact(file: Path, lines: Iterable[bytes]) -> int:
    """Replace a file, whole or not at all, and return its size in bytes. Raises OSError that names `file`."""
    with replacing(file) as opened:
        return sum(opened.write(line) for line in lines)


@contextmanager
def _blamed(file: Path | None) -> Iterator[None]:
    """Let an error name the file that was asked for; nobody knows the temporary one."""
    try:
        yield
    except OSError as error:
        if file is None:
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error


def artifact_file_lines(file: Path) -> Iterator[bytes]:
    """The lines of the artifact in a file; see `read_artifact_lines`."""
    with file.open("rb") as opened:
        yield from read_artifact_lines(opened)
