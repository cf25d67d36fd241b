"""The blocks of a page of the tutorial, as somebody reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.house.files import REPO

TUTORIAL = REPO / "docs" / "tutorial"
_BLOCK = re.compile(r"(?:^`(?P<file>[A-Za-z_.-]+)`:\n\n)?^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One block of a page; `file` is the name under which the page says to keep it."""

    language: str
    text: str
    file: str = ""


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = _BLOCK.finditer((TUTORIAL / page).read_text("utf-8"))
    return [Block(one["language"], one["text"], one["file"] or "") for one in found]


def keep(blocks: list[Block], folder: Path) -> None:
    """Write the files of a page, as it says."""
    for block in blocks:
        if block.file:
            (folder / block.file).write_text(block.text, "utf-8")
