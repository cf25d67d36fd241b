"""Replay artifacts as files: read line by line, compressed or not, and fetched from the site into one."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from apps.cli.program import Cli
from oa_client.replay import fetch_artifact
from oa_errors import Refusal
from oa_khala.topics import parse_topic, run_events
from oa_runlog.replay import MAX_LINE_BYTES, VerifiedReplay, verify_artifact

_ZSTD_MAGIC = bytes.fromhex("28b52ffd")


@dataclass(frozen=True)
class Fetched:
    """An artifact of the site in a file that is removed afterwards, unless it is moved away."""

    path: Path
    size: int
    replay: VerifiedReplay


@asynccontextmanager
async def fetched_artifact(cli: Cli, run_id: str, folder: Path | None) -> AsyncIterator[Fetched]:
    """The artifact of a run, checked with the pinned keys, in a file in `folder` (default: for temporary ones).

    Raises Refusal: those of `oa_client.replay.fetch_artifact` and `oa_runlog.replay.verify_artifact`.
    """
    with staging(folder) as (path, opened):
        async with cli.site.client() as client:
            keys = await client.pinned_keys()
            size = await fetch_artifact(client.commands, run_id, opened)
        opened.close()
        yield Fetched(path, size, verify_artifact(artifact_file_lines(path), keys, run_id=run_id))


@contextmanager
def staging(folder: Path | None) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file to write to, which is removed at the end of the block unless it was moved away."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".oa-replay-")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            yield path, opened
    finally:
        path.unlink(missing_ok=True)


def is_run_id(text: str) -> bool:
    """Whether this is the id of a run."""
    try:
        parse_topic(run_events(text))
    except Refusal:
        return False
    return True


def artifact_file_lines(file: Path) -> Iterator[bytes]:
    """The lines of an artifact with their ends; one that is too long comes in pieces, which no reader takes for lines.

    Raises Refusal artifact_malformed for what is compressed and broken.
    """
    with file.open("rb") as opened:
        is_compressed = opened.read(len(_ZSTD_MAGIC)) == _ZSTD_MAGIC
        opened.seek(0)
        if not is_compressed:
            while line := opened.readline(MAX_LINE_BYTES + 1):
                yield line
            return
        with zstandard.ZstdDecompressor().stream_reader(opened) as stream, io.BufferedReader(stream) as plain:
            while line := _read_line(plain):
                yield line


def _read_line(plain: io.BufferedReader[Any]) -> bytes:
    try:
        return plain.readline(MAX_LINE_BYTES + 1)
    except (zstandard.ZstdError, EOFError):
        raise Refusal("artifact_malformed", "The file is compressed with zstd, and broken.") from None
