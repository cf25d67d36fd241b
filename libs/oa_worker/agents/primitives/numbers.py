"""Numbers of what an agent's function asks for (its steps, requests, children): the same ones again after a takeover.

They are given in the order of asking. Branches that go on at once may come to ask in another order than they did, after
what they do by themselves: there a thing is the recorded one that is like it, wherever it stands.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)
"""What tells one thing from another of its kind: of a step its name and arguments, for example."""


class Numbers(Generic[W]):
    """The numbers of one kind of thing in one attempt of a run. `recorded`: those that the log has, from 1."""

    def __init__(self, recorded: Mapping[int, W]) -> None:
        self._recorded = dict(recorded)
        self._alike: dict[W, deque[int]] = {}
        """Ascending."""
        for number in sorted(self._recorded):
            self._alike.setdefault(self._recorded[number], deque()).append(number)
        self._given: set[int] = set()
        self._lowest_free = 1

    def found(self, wanted: int, what: W, *, has_branches: bool) -> int | None:
        """The number under which the log has it, which nobody else gets then; None if it does not.

        Without branches it is the wanted number, even if the log has another thing there: the caller compares them.
        """
        number = wanted if wanted in self._recorded else None
        if has_branches and (number is None or self._recorded[number] != what or number in self._given):
            number = self._first_alike(what)
        if number is not None:
            self._given.add(number)
        return number

    def free(self, wanted: int) -> int:
        """The wanted number, if nothing has it; else the lowest that is free."""
        while self._is_taken(self._lowest_free):
            self._lowest_free += 1
        number = self._lowest_free if self._is_taken(wanted) else wanted
        self._given.add(number)
        return number

    def found_or_free(self, wanted: int, what: W, *, has_branches: bool) -> int:
        """What `found` finds, or else a number that is free."""
        number = self.found(wanted, what, has_branches=has_branches)
        return self.free(wanted) if number is None else number

    def unasked(self) -> list[int]:
        """Recorded ones that nobody has found, ascending."""
        return sorted(self._recorded.keys() - self._given)

    def _first_alike(self, what: W) -> int | None:
        alike = self._alike.get(what, deque())
        while alike and alike[0] in self._given:
            alike.popleft()
        return alike[0] if alike else None

    def _is_taken(self, number: int) -> bool:
        return number in self._recorded or number in self._given


def numbers_of(prefix: str, recorded: Mapping[str, W]) -> Numbers[W]:
    """The numbers of what the log names by a letter and a number, such as `c1`. Other names are none of ours."""
    ours = re.compile(f"{prefix}[1-9][0-9]*")
    return Numbers({int(name.removeprefix(prefix)): what for name, what in recorded.items() if ours.fullmatch(name)})
