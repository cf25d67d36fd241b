"""What people are told about the input of a command: its size, in few notes however large it is. Pure."""

from __future__ import annotations

from collections import Counter

from apps.cli.output import bytes_words
from oa_base.refusal import Refusal
from oa_runlog.stdin import read_piece

BULK_BYTES = 4096
"""An input of this size or more is a piece of a file. A smaller one is a line that somebody typed, told at once."""


class StdinNotes:
    """The inputs of one command, each by its sender. The pieces of a file are told when as much has come again as was
    told before, and at the end of the input."""

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()
        """Bytes of files that were told, by sender."""
        self._untold: Counter[str] = Counter()

    def words(self, sent_by: str, said: str) -> str:
        """Return what to tell about the next input; empty if there is nothing to tell yet."""
        try:
            piece = read_piece(said)
        except Refusal:  # from a release that knows other forms
            return f"{sent_by} says {said}"
        size = self._untold.pop(sent_by, 0) + len(piece.data)
        told = self._told[sent_by]
        if size >= BULK_BYTES and size < told and not piece.ends:
            self._untold[sent_by] = size
            return ""
        wrote = f"{sent_by} writes {bytes_words(size)}"
        if size >= BULK_BYTES:
            self._told[sent_by] += size
            wrote += " more" if told else ""
        if not piece.ends:
            return f"{wrote} to the command"
        return f"{wrote} to the command, and that is all" if size else f"{sent_by} ends the command's input"
