"""The pages of docs/operations, as their readers follow them."""

from __future__ import annotations

import re
import textwrap

from oa_testing.postgres import REPOSITORY

PAGES = REPOSITORY / "docs" / "operations"


def commands(page: str, section: str) -> list[str]:
    """The indented blocks of a section, each as one script."""
    text = (PAGES / page).read_text("utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(r"(?:^ {4,}(?! *[-*]).*\n)+", text, re.MULTILINE)]
