"""Replay artifacts as files: read line by line, compressed or not, and fetched from the site into one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from apps.cli.program import Cli
from oa_client.replay import fetch_artifact
from oa_errors import Refusal
from oa_khala.topics import parse_topic, run_events
from oa_runlog.proof.replay import MAX_LINE_BYTES
from oa_runlog.proof.verify import VerifiedReplay, verify_artifact

_ZSTD_MAGIC = bytes.fromhex("28b52ffd")
_UNPACK_BYTES = 1024
"""What is unpacked at once: a few bytes can stand for very many."""


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

    Raises Refusal artifact_malformed for what is compressed and broken, or followed by anything.
    """
    with file.open("rb") as opened:
        is_compressed = opened.read(len(_ZSTD_MAGIC)) == _ZSTD_MAGIC
        opened.seek(0)
        if is_compressed:
            yield from _lines(_unpacked(opened))
            return
        while line := opened.readline(MAX_LINE_BYTES + 1):
            yield line


def _unpacked(opened: BinaryIO) -> Iterator[bytes]:
    """The content of one zstd frame, which must be all that there is: frames after it may be skipped by one reader
    and shown by another."""
    unpack = zstandard.ZstdDecompressor().decompressobj()
    while piece := opened.read(_UNPACK_BYTES):
        if unpack.eof:
            raise _goes_on()
        try:
            yield unpack.decompress(piece)
        except zstandard.ZstdError:
            raise Refusal("artifact_malformed", "The file is compressed with zstd, and broken.") from None
    if unpack.unused_data:
        raise _goes_on()
    if not unpack.eof:
        raise Refusal("artifact_malformed", "The file is compressed with zstd, and ends too early.")


def _goes_on() -> Refusal:
    return Refusal("artifact_malformed", "The file is compressed with zstd, and goes on after the end of its content.")


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(rest) > MAX_LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest
