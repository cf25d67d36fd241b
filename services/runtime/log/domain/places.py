"""How far partitions have come, as a text: "partition:position partition:position …"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

MAX_PLACES = 200
"""Maximum number of partitions that are named in one text. A notification of Postgres has less than 8000 bytes."""
_PLACE = re.compile(r"([0-9]{1,9}):([0-9]{1,19})")


def places_text(places: Iterable[tuple[int, int]]) -> str:
    """The text of at most MAX_PLACES places."""
    return " ".join(f"{partition}:{position}" for partition, position in places)


def places_of(text: str) -> list[tuple[int, int]]:
    """The places that a text names. Raises ValueError for any other text, which may come from anybody."""
    return [_place(one) for one in text.split(" ")]


def _place(text: str) -> tuple[int, int]:
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError("not partition:position")
    return int(found[1]), int(found[2])


def texts_of(positions: Mapping[int, int]) -> Sequence[str]:
    """As many texts as all positions need."""
    places = list(positions.items())
    return [places_text(places[start : start + MAX_PLACES]) for start in range(0, len(places), MAX_PLACES)]
