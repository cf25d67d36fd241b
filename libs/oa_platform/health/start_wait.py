"""What the start of this process waits for, so that a start that is given up can say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class StartWait:
    """Something that has to be there before the process can go on, and why it is not."""

    what: str
    why: str = "no answer yet"


_waits: list[StartWait] = []


@contextmanager
def start_waits_for(what: str) -> Iterator[StartWait]:
    """A block that waits for something ("the database at db:5432"). It sets `why` as it learns more."""
    wait = StartWait(what)
    _waits.append(wait)
    try:
        yield wait
    finally:
        _waits.remove(wait)


def said_of_start_waits() -> str:
    """What is waited for, with the latest reasons; empty if nothing is."""
    return ", ".join(f"{wait.what} ({wait.why})" for wait in _waits)
