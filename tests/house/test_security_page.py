"""docs/security.md: every requirement is shown by a test, or says why not."""

from __future__ import annotations

import re

from tests.house.files import REPO

_PAGE = "docs/security.md"
_ROW = re.compile(r"^\| ((?:\d+\.)+\d+\S*(?:, \S+)*) \| (.+?) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`[\w/]+\.py::test_\w+`")


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
    numbers = [number for number, *_ in _ROW.findall(page)]
    assert {number.partition(".")[0] for number in numbers} == {"2", "3", "4", "13"}
    assert len(numbers) == len(set(numbers)) > 50


def test_a_requirement_that_nothing_shows_is_found() -> None:
    rows = (
        "| 9.1.1 | it | `tests/x.py::test_y` |",
        "| 9.1.2 | it | n/a: none |",
        "| 9.1.3 | it | yes |",
        "| 9.1.4 | it | n/a |",
    )
    assert unshown("\n".join(rows)) == ["9.1.3", "9.1.4"]
