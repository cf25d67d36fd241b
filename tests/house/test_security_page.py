"""docs/security.md: every requirement is shown by a test, or says why not."""

from __future__ import annotations

import re

from tests.house.files import REPO

_PAGE = "docs/security.md"
_ROW = re.compile(r"^\| ((?:\d+\.)+\d+\S*(?:, \S+)*) \| (.+?) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`[\w/]+\.py::test_\w+`")


_LEVEL_2 = {
    "2.1": range(1, 13),
    "2.2": range(1, 4),
    "2.3": range(1, 4),
    "2.4": range(1, 7),
    "2.5": range(1, 8),
    "2.6": range(1, 4),
    "2.7": range(1, 7),
    "2.8": range(1, 8),
    "2.9": range(1, 4),
    "2.10": range(1, 5),
    "3.1": range(1, 2),
    "3.2": range(1, 5),
    "3.3": range(1, 5),
    "3.4": range(1, 6),
    "3.5": range(1, 4),
    "3.7": range(1, 2),
    "4.1": (1, 2, 3, 5),
    "4.2": range(1, 3),
    "4.3": range(1, 4),
    "13.1": (1, 3, 4, 5),
    "13.2": (1, 2, 3, 5, 6),
    "13.3": range(1, 3),
    "13.4": range(1, 3),
}
"""The requirements of ASVS 4.0.3 that count at level 2, in V2, V3, V4 and V13, by section."""


def requirements(numbers: str) -> list[str]:
    """What a cell with numbers is about: "2.1.1–2.1.3, 2.2.1" is four."""
    found = []
    for part in numbers.split(", "):
        first, _, last = part.partition("–")
        section, _, number = first.rpartition(".")
        end = int((last or first).rpartition(".")[2])
        found += [f"{section}.{each}" for each in range(int(number), end + 1)]
    return found


def unshown(page: str) -> list[str]:
    """Numbers of requirements with neither a test nor a reason."""
    return [
        number
        for number, _, shown in _ROW.findall(page)
        if not _TEST.search(shown) and not re.match(r"(?:n/a|missing): \w", shown)
    ]


def test_every_requirement_is_shown_or_says_why_not() -> None:
    page = (REPO / _PAGE).read_text("utf-8")
    assert unshown(page) == []


def test_every_requirement_has_a_line_and_no_other_has() -> None:
    cells = _ROW.findall((REPO / _PAGE).read_text("utf-8"))
    listed = [number for cell, *_ in cells for number in requirements(cell)]
    assert len(listed) == len(set(listed)), "each once"
    wanted = {f"{section}.{number}" for section, numbers in _LEVEL_2.items() for number in numbers}
    assert (sorted(wanted - set(listed)), sorted(set(listed) - wanted)) == ([], [])


def test_a_requirement_that_nothing_shows_is_found() -> None:
    rows = (
        "| 9.1.1 | it | `tests/x.py::test_y` |",
        "| 9.1.2 | it | n/a: none |",
        "| 9.1.3 | it | yes |",
        "| 9.1.4 | it | n/a |",
    )
    assert unshown("\n".join(rows)) == ["9.1.3", "9.1.4"]
