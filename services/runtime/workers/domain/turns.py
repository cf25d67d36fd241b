"""Whose turn it is: who was given a run longest ago. Pure.

With one free slot at a time nobody has more runs with workers than anybody else, and who has thousands waiting would
always have the oldest. So a replica remembers whom it served, and lets the others go first. It is remembered in this
process alone: after a restart, or on another replica, a person may be served twice in a row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

MAX_PEOPLE = 1_000
"""How many people are remembered. Who was served so long ago that it is forgotten goes first anyway."""


class Turns:
    """People, in the order in which they were last served."""

    def __init__(self, max_people: int = MAX_PEOPLE) -> None:
        self._max_people = max_people
        self._marks: OrderedDict[str, int] = OrderedDict()
        self._newest = 0

    def served(self, user_id: str) -> None:
        """The person was given a run."""
        self._newest += 1
        self._marks[user_id] = self._newest
        self._marks.move_to_end(user_id)
        if len(self._marks) > self._max_people:
            self._marks.popitem(last=False)

    @property
    def marks(self) -> Mapping[str, int]:
        """Person -> a number that is the higher the later they were served."""
        return self._marks
