"""Runs as their logs make them: the plain values of the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

FINAL = {"succeeded", "failed", "canceled"}


class Entry(NamedTuple):
    """An event: what it is, the lease that it is under, and what it says."""

    kind: str
    epoch: int
    says: str = ""


class Said(NamedTuple):
    """An event that a worker appends."""

    kind: str
    says: str = ""


class Stored(NamedTuple):
    """The seqs of what was stored, now or before."""

    first: int
    last: int
    again: bool = False


Answer = Stored | str
"""What a command is answered with: a string is the reason of a refusal."""


@dataclass(frozen=True)
class Wish:
    """What a run is to be."""

    title: str
    max_failures: int = 1
    thread: str = ""
    thread_policy: str = ""
    key: str = ""
    """Of concurrency; one run with it at a time."""


@dataclass
class Run:
    """A run as its log makes it."""

    run_id: str
    wish: Wish
    parent: str = ""
    ends_with_parent: bool = False
    status: str = "created"
    log: list[Entry] = field(default_factory=list)
    worker: str = ""
    """Who got the newest lease."""
    epoch: int = 0
    is_held: bool = False
    failures: int = 0
    keys: dict[str, tuple[object, Stored]] = field(default_factory=dict)
    """Idempotency key -> content and answer."""
    requests: dict[str, tuple[str, Stored] | None] = field(default_factory=dict)
    """Id -> the option that settled it (empty for the end of its time), and the answer."""
    is_told: bool = False
    """Its parent was told of its end, or does not care."""

    @property
    def is_over(self) -> bool:
        return self.status in FINAL

    @property
    def is_going_on(self) -> bool:
        """It may hear others, and may be canceled."""
        return self.status in ("created", "running")

    def store(self, *entries: Entry) -> Stored:
        """Append to the log."""
        self.log += entries
        return Stored(len(self.log) - len(entries) + 1, len(self.log))

    def end(self, status: str, epoch: int = 0) -> None:
        """The finish, by the authority or under a lease."""
        self.store(Entry("run_finished", epoch, status))
        self.status, self.is_held = status, False
