"""Numbers of the things that an agent's function asks for (steps, requests, children): the same after a takeover.

They are given in the order of asking. Branches that run at the same time may ask in a different order after a takeover,
depending on what they do by themselves. With branches, a thing is therefore matched with a recorded thing that is equal
to it, wherever that is in the log.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)
"""Distinguishes a thing from others of its kind: the name and arguments of a step, for example."""


class Numbers(Generic[W]):
    """The numbers of one kind of thing in one attempt of a run. `recorded`: those in the log, from 1."""

    def __init__(self, recorded: Mapping[int, W]) -> None:
        self._recorded = dict(recorded)
        self._alike: dict[W, deque[int]] = {}
        """Ascending."""
        for number in sorted(self._recorded):
            self._alike.setdefault(self._recorded[number], deque()).append(number)
        self._given: set[int] = set()
        self._lowest_free = 1

    def found(self, wanted: int, what: W, *, has_branches: bool) -> int | None:
        """Return the number under which the log has the thing, and reserve it; None if the log does not have it.

        Without branches this is the wanted number, even if the log has another thing there: the caller compares them.
        """
        number = wanted if wanted in self._recorded else None
        if has_branches and (number is None or self._recorded[number] != what or number in self._given):
            number = self._first_alike(what)
        if number is not None:
            self._given.add(number)
        return number

    def free(self, wanted: int) -> int:
        """Return the wanted number if it is free, or else the lowest free one."""
        while self._is_taken(self._lowest_free):
            self._lowest_free += 1
        number = self._lowest_free if self._is_taken(wanted) else wanted
        self._given.add(number)
        return number

    def found_or_free(self, wanted: int, what: W, *, has_branches: bool) -> int:
        """Return the number that `found` finds, or else a free one."""
        number = self.found(wanted, what, has_branches=has_branches)
        return self.free(wanted) if number is None else number

    def unasked(self) -> list[int]:
        """Return the recorded numbers that nobody has found, ascending."""
        return sorted(self._recorded.keys() - self._given)

    def _first_alike(self, what: W) -> int | None:
        alike = self._alike.get(what, deque())
        while alike and alike[0] in self._given:
            alike.popleft()
        return alike[0] if alike else None

    def _is_taken(self, number: int) -> bool:
        return number in self._recorded or number in self._given


def numbers_of(prefix: str, recorded: Mapping[str, W]) -> Numbers[W]:
    """Return the numbers of things that the log names by a letter and a number, such as `c1`. Ignore other names."""
    ours = re.compile(f"{prefix}[1-9][0-9]*")
    return Numbers({int(name.removeprefix(prefix)): what for name, what in recorded.items() if ours.fullmatch(name)})
