"""Replay artifacts, fetched whole."""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Protocol

from oa_client.models import ArtifactPiece
from oa_errors import Refusal


class Pieces(Protocol):
    """Who has artifacts: `oa_client.commands.Commands`."""

    async def artifact_piece(self, run_id: str, offset: int) -> ArtifactPiece:
        """The piece that begins at `offset`."""


async def fetch_artifact(pieces: Pieces, run_id: str, into: BinaryIO) -> int:
    """Write the artifact of a run that has ended into a file; returns its size.

    Raises Refusal `run_not_finished`, `archive_damaged`; `artifact_malformed` when what came is not what was announced.
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
    return Refusal("artifact_malformed", "What came of the artifact is not what the site announced. Fetch it again.")
