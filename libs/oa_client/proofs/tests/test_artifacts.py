"""Replay artifacts: fetched whole, or not at all; and read line by line."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import pytest
import zstandard

from oa_base.refusal import Refusal
from oa_client.core.models import ArtifactPiece
from oa_client.proofs.artifacts import _lines, fetch_artifact, is_of_another_past, read_artifact_lines
from oa_runlog.proof.replay import MAX_LINE_BYTES, artifact_lines
from oa_runlog.proof.verify import verify_artifact
from oa_runlog.tests.records import KEYS, MALLORY, record, text

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


LINES = [b"one\n", b"\n", b"two \xff\n", b"no end"]
PACKED = zstandard.compress(b"".join(LINES))
SKIPPABLE = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"note"


def lines_in(data: bytes) -> list[bytes]:
    return list(read_artifact_lines(io.BytesIO(data)))


@pytest.mark.parametrize("lines", [LINES, LINES[:-1], [], [b"\n"], [b"(\xb5/"]])
def test_lines_are_the_same_compressed_or_not(lines: list[bytes]) -> None:
    data = b"".join(lines)
    assert lines_in(data) == lines == lines_in(zstandard.compress(data))


def test_reading_begins_where_the_file_stands() -> None:
    opened = io.BytesIO(b"before" + PACKED)
    opened.seek(6)
    assert list(read_artifact_lines(opened)) == LINES


@pytest.mark.parametrize(
    "data",
    [
        *(PACKED[:4], PACKED[:-1], PACKED[:4] + b"\xff" * 20),
        *(PACKED + after for after in (SKIPPABLE, b"x", PACKED, zstandard.compress(b""), bytes(5000))),
    ],
    ids=["magic only", "cut", "nonsense", "skippable", "byte", "again", "empty frame", "zeros"],
)
def test_what_is_compressed_and_broken_or_goes_on_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        lines_in(data)
    assert caught.value.reason == "artifact_malformed"


@pytest.mark.parametrize(
    ("packed", "max_bytes"),
    # Of 1 KiB, 256 blocks of 128 KiB can be unpacked.
    [(False, MAX_LINE_BYTES + 1), (True, MAX_LINE_BYTES + 256 * 128 * 1024)],
    ids=["plain", "packed"],
)
def test_a_line_that_is_too_long_is_never_held_whole(packed: bool, max_bytes: int) -> None:
    data = bytes(6 * MAX_LINE_BYTES)
    opened = io.BytesIO(zstandard.compress(data) if packed else data)
    sizes = [len(piece) for piece in read_artifact_lines(opened)]
    assert sum(sizes) == len(data)
    assert max(sizes) <= max_bytes < len(data)


class Piece(bytes):
    """Counts what is copied to put it behind something else."""

    copied = 0

    def __radd__(self, before: bytes) -> bytes:
        Piece.copied += len(before)
        return before + bytes(self)


def test_a_long_line_in_tiny_pieces_is_copied_once() -> None:
    pieces = [Piece(b"x")] * 10_000 + [Piece(b"\nlast")]
    assert [*_lines(pieces)] == [b"x" * 10_000 + b"\n", b"last"]
    assert Piece.copied == 0


def test_only_a_kept_receipt_tells_another_past() -> None:
    """Both are signed by the authority's own key."""
    run, rewritten = record([text(b"one")]), record([text(b"two")])
    replay = verify_artifact(artifact_lines(run.receipt, run.events), KEYS)
    assert not is_of_another_past(replay, run.receipt, KEYS)
    assert is_of_another_past(replay, rewritten.receipt, KEYS)
    other = record([text(b"one")], "run_01JD8V0000000000000000000B")
    for kept, keys in ((other.receipt, KEYS), (run.receipt, {MALLORY.key_id: MALLORY.public_key})):
        with pytest.raises(Refusal) as caught:
            is_of_another_past(replay, kept, keys)
        assert caught.value.reason in ("receipt_foreign", "unknown_key")
