"""The order of people: the person who was given a run longest ago is next. Pure.

When slots become free one at a time, nobody has more runs at workers than anybody else, and a person with thousands of
waiting runs would always have the oldest. So a replica remembers which people it has served, and lets the others go
first. Only this process remembers it: after a restart, or on another replica, a person may be served twice in a row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

MAX_PEOPLE = 1_000
"""Maximum number of people that are remembered. One who was served too long ago to be remembered is next anyway."""


class Turns:
    """People, in the order in which they were last served."""

    def __init__(self, max_people: int = MAX_PEOPLE) -> None:
        self._max_people = max_people
        self._marks: OrderedDict[str, int] = OrderedDict()
        self._newest = 0

    def served(self, user_id: str) -> None:
        """Note that the person was given a run."""
        self._newest += 1
        self._marks[user_id] = self._newest
        self._marks.move_to_end(user_id)
        if len(self._marks) > self._max_people:
            self._marks.popitem(last=False)

    @property
    def marks(self) -> Mapping[str, int]:
        """Person -> a number that is higher the later the person was served."""
        return self._marks
