"""How far partitions have come, as a text: "partition:position partition:position …"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

MAX_POSITIONS = 200
"""Maximum number of partitions that are named in one text. A notification of Postgres has less than 8000 bytes."""
_POSITION = re.compile(r"([0-9]{1,9}):([0-9]{1,19})")


def positions_text(positions: Iterable[tuple[int, int]]) -> str:
    """The text of at most MAX_POSITIONS partitions and their positions."""
    return " ".join(f"{partition}:{position}" for partition, position in positions)


def positions_of(text: str) -> list[tuple[int, int]]:
    """The partitions and positions that a text names. Other words in it are passed over: a replica of a later release
    may say more. Raises ValueError for a text that names none, which may come from anybody."""
    found = [(int(one[1]), int(one[2])) for one in map(_POSITION.fullmatch, text.split(" ")) if one]
    if not found:
        raise ValueError("no partition:position")
    return found


def texts_of(positions: Mapping[int, int]) -> Sequence[str]:
    """As many texts as all positions need."""
    pairs = list(positions.items())
    return [positions_text(pairs[start : start + MAX_POSITIONS]) for start in range(0, len(pairs), MAX_POSITIONS)]
