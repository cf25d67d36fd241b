"""What a replica knows of the journal, and what of it a server lacks. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from services.projector.journal.domain import RowMark


class Followed(NamedTuple):
    """What a replica has seen committed. Both are needed: checkpoints also tell of rows that other replicas wrote, and
    rows tell of workers, and of other rows under the same numbers."""

    positions: Mapping[str, int]
    """Checkpoint -> its position, as the last look found it."""
    rows: Collection[RowMark]
    """The newest rows that this replica has written."""


class StoredRow(NamedTuple):
    """What a server has where a row is expected. `digest` is None where there is no row."""

    topic: str
    seq: int
    floor: int
    digest: bytes | None


def lacking(followed: Followed, positions: Mapping[str, int], rows: Collection[StoredRow]) -> tuple[str, ...]:
    """The checkpoints and topics of which a server with these positions and rows lacks something."""
    behind = {name for name, position in followed.positions.items() if positions.get(name, 0) < position}
    return tuple(sorted(behind | set(_replaced(followed.rows, rows))))


def _replaced(followed: Collection[RowMark], rows: Collection[StoredRow]) -> Iterator[str]:
    stored = {(row.topic, row.seq): row for row in rows}
    for mark in followed:
        row = stored.get((mark.topic, mark.seq))
        is_pruned = row is not None and row.digest is None and mark.seq <= row.floor
        if row is None or (row.digest != mark.digest and not is_pruned):
            yield mark.topic
