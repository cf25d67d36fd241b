"""Lines that are longer than the terminal is wide.

A terminal, and rich, would go on in the first column, where every line of ours begins: a long title could then make a
line that looks like one of ours. What goes on is therefore indented. Ids and hashes are never broken, so that they can
be copied.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"\s*\S+")
_WHOLE = re.compile(r"[^\w\s]{0,3}(?:[a-z]{2,4}_[0-9A-Z]{26}|(?:\d{1,20}:)?[0-9a-f]{64})[^\w\s]{0,3}", re.ASCII)
_MIN_ROOM = 20
"""Columns that a deep indent has to leave for the text."""
INDENT = 2


def wrapped(text: str, width: int, indent: int = INDENT) -> str:
    """Return one line as lines of at most `width` columns; those after the first are indented.

    Only an id or a hash that has no room in a whole line is longer.
    """
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    margin = " " * (indent if width - indent >= _MIN_ROOM else INDENT)
    lines, line = list[str](), ""
    for piece in _WORD.findall(text):
        if cell_len(line + piece) <= width:
            line += piece
            continue
        if line.strip():
            lines.append(line)
            line = margin
        *full, line = _broken(line, piece.lstrip() if lines else piece, width)
        lines += full
    return "\n".join([*lines, line])


def _broken(begun: str, word: str, width: int) -> list[str]:
    """Return the lines of a word for which a line has begun that is blank so far."""
    from rich.cells import cell_len, chop_cells

    if cell_len(begun + word) <= width:
        return [begun + word]
    if _WHOLE.fullmatch(word):
        return [" " * min(len(begun), INDENT) + word]
    first, *rest = chop_cells(word, max(1, width - len(begun)))
    margin = begun or " " * INDENT
    left = chop_cells("".join(rest), max(1, width - len(margin))) if rest else []
    return [begun + first, *(margin + part for part in left)]
