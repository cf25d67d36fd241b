"""Fetching replay artifacts: whole, or not at all."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import pytest

from oa_client.models import ArtifactPiece
from oa_client.replay import fetch_artifact
from oa_errors import Refusal

DATA = bytes(range(256)) * 5


class Site:
    """Hands out DATA in pieces of 100 bytes; `lie` changes the piece at an offset."""

    def __init__(self) -> None:
        self.lies: dict[int, ArtifactPiece] = {}

    def honest(self, offset: int) -> ArtifactPiece:
        return ArtifactPiece(DATA[offset : offset + 100], len(DATA), hashlib.sha256(DATA).digest())

    async def artifact_piece(self, run_id: str, offset: int) -> ArtifactPiece:
        return self.lies.get(offset) or self.honest(offset)


async def test_an_artifact_comes_whole() -> None:
    into = io.BytesIO()
    assert await fetch_artifact(Site(), "run_x", into) == len(DATA)
    assert into.getvalue() == DATA


@pytest.mark.parametrize(
    "lie",
    [
        {"data": b"x" * 100},
        {"data": b""},
        {"data": b"x" * 5000},
        {"total_bytes": 5000},
        {"sha256": bytes(32)},
    ],
    ids=["changed", "ends early", "too much", "another size", "another hash"],
)
async def test_what_is_not_as_announced_is_refused(lie: dict[str, object]) -> None:
    site = Site()
    site.lies[200] = replace(site.honest(200), **lie)  # type: ignore[arg-type]
    with pytest.raises(Refusal) as caught:
        await fetch_artifact(site, "run_x", io.BytesIO())
    assert caught.value.reason == "artifact_malformed"
