"""What the runs of a soak have to do."""

from __future__ import annotations

from dataclasses import dataclass

AGENT = "soak"


@dataclass
class Task:
    """What a run has to do."""

    words: int
    asks: bool = False
    hears: bool = False
    has_child: bool = False


@dataclass
class Done:
    """What it did."""

    words: int
    approved: bool = False
    heard: str = ""
