"""The terminal that a run gets: one like ours."""

from __future__ import annotations

import os
from collections.abc import Iterable

from oa_runlog.events import Terminal

_OUR_FILES = (1, 0, 2)
_LONGEST_SIDE = 1000
"""Of a terminal that the contract takes."""


def terminal_like_ours(files: Iterable[int] = _OUR_FILES) -> Terminal:
    """A terminal as large as the first of ours that has a size; of the usual size where we have none."""
    for fd in files:
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:  # it is a pipe, a file, or closed
            continue
        if columns and rows:
            return Terminal(min(columns, _LONGEST_SIDE), min(rows, _LONGEST_SIDE))
    return Terminal()
