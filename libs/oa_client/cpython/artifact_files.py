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


@asynccontextmanager
async def fetched_artifact(client: Client, run_id: str, folder: Path | None = None) -> AsyncIterator[Fetched]:
    """The artifact of a run, checked with the pinned keys, in a file in `folder` (default: that for temporary files).

    Raises Refusal: those of `oa_client.proofs.run_proofs.RunProofs.artifact`.
    """
    with staging(folder) as (path, opened):
        artifact = await client.proofs.artifact(run_id, opened)
        opened.close()
        yield Fetched(path, artifact.size_bytes, artifact.replay)


@contextmanager
def staging(folder: Path | None) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file to write and read, which is removed at the end of the block unless it was moved away."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".oa-replay-")
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


def write_artifact(file: Path, lines: Iterable[bytes]) -> int:
    """Replace a file, whole or not at all, and return its size in bytes."""
    with staging(file.parent) as (path, opened):
        size_bytes = sum(opened.write(line) for line in lines)
        opened.close()
        path.replace(file)
    return size_bytes


def artifact_file_lines(file: Path) -> Iterator[bytes]:
    """The lines of the artifact in a file; see `read_artifact_lines`."""
    with file.open("rb") as opened:
        yield from read_artifact_lines(opened)
