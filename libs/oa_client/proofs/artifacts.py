"""Replay artifacts: fetched whole, and read line by line, compressed or not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, Protocol

import zstandard

from oa_base.refusal import Refusal
from oa_client.core.models import ArtifactPiece
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.replay import MAX_LINE_BYTES
from oa_runlog.proof.verify import VerifiedReplay, verify_receipt

_ZSTD_MAGIC = bytes.fromhex("28b52ffd")
_UNPACK_BYTES = 1024
"""Number of bytes unpacked at a time, small because a few bytes can stand for very many."""


class Pieces(Protocol):
    """A source of artifacts: `oa_client.edge.commands.Commands`."""

    async def artifact_piece(self, run_id: str, offset: int) -> ArtifactPiece:
        """Return the piece that begins at `offset`."""


async def fetch_artifact(pieces: Pieces, run_id: str, into: BinaryIO) -> int:
    """Write the artifact of a run that has ended into a file, and return its size.

    Raises Refusal `run_not_finished`, `archive_damaged`; `artifact_malformed` if the content is not as announced.
    """
    digest, size = hashlib.sha256(), 0
    announced: tuple[int, bytes] | None = None
    while announced is None or size < announced[0]:
        piece = await pieces.artifact_piece(run_id, size)
        if announced is None:
            announced = piece.total_bytes, piece.sha256
        if announced != (piece.total_bytes, piece.sha256) or not piece.data:
            raise _not_as_announced()
        digest.update(piece.data)
        into.write(piece.data)
        size += len(piece.data)
    if size != announced[0] or digest.digest() != announced[1]:
        raise _not_as_announced()
    return size


def _not_as_announced() -> Refusal:
    return Refusal("artifact_malformed", "what came of the artifact is not what the site announced; fetch it again")


def is_of_another_past(replay: VerifiedReplay, kept: SignedReceipt, keys: Mapping[str, bytes]) -> bool:
    """Whether a verified artifact holds another receipt of its run than the one that was kept. Only the keeper of a
    receipt can tell.

    Raises the Refusals of `verify_receipt` for a kept receipt that is not signed by `keys`, or is another run's.
    """
    verify_receipt(kept, keys, run_id=replay.facts.run_id)
    return kept != replay.receipt


def read_artifact_lines(opened: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of an artifact with their line ends. `opened` must be at the artifact's beginning. A line that is
    too long comes in pieces, which no reader takes for lines.

    Raises Refusal artifact_malformed if a compressed artifact is broken, or is followed by anything.
    """
    begin = opened.tell()
    is_compressed = opened.read(len(_ZSTD_MAGIC)) == _ZSTD_MAGIC
    opened.seek(begin)
    if is_compressed:
        yield from _lines(_unpacked(opened))
        return
    while line := opened.readline(MAX_LINE_BYTES + 1):
        yield line


def _unpacked(opened: BinaryIO) -> Iterator[bytes]:
    """Yield the content of one zstd frame. Nothing may follow it, because one reader may skip further frames and
    another may show them."""
    unpack = zstandard.ZstdDecompressor().decompressobj()
    while piece := opened.read(_UNPACK_BYTES):
        if unpack.eof:
            raise _goes_on()
        try:
            yield unpack.decompress(piece)
        except zstandard.ZstdError:
            raise Refusal("artifact_malformed", "the file is compressed with zstd, and broken; get it again") from None
    if unpack.unused_data:
        raise _goes_on()
    if not unpack.eof:
        raise Refusal("artifact_malformed", "the file is compressed with zstd, and ends too early; get it again")


def _goes_on() -> Refusal:
    return Refusal("artifact_malformed", "the file is compressed with zstd, and goes on after its end; get it again")


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # Joined once for each line: whoever adds each piece to the line so far copies a long line for each of them, and a
    # frame can be made of many tiny blocks.
    begun: list[bytes] = []
    size = 0
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            yield b"".join((*begun, line, b"\n"))
            begun, size = [], 0
        begun.append(rest)
        size += len(rest)
        if size > MAX_LINE_BYTES:
            yield b"".join(begun)
            begun, size = [], 0
    if size:
        yield b"".join(begun)
