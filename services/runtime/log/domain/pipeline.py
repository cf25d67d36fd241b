"""The appends of one lease over one stream, of which several may be on their way: none overtakes another. Pure.

An append may be refused for now: the database is away, the queue is full, the run is too fast. It is to be sent again
then, and what was sent after it must not be stored before it. So that is refused too, until the first one that was
refused comes again, and then the next one, in the order in which they were sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal

OVERTAKEN_RETRY_MS = 100
"""Wait that a refusal names of what would overtake: sent again in order, it need not wait for longer."""


@dataclass(frozen=True, slots=True)
class Place:
    """An append's place in the order of sending."""

    pipeline: Pipeline
    number: int
    key: str


class Pipeline:
    """What was sent, and what of it was refused for now and has not come again.

    It remembers so many keys that were refused. A sender that sends in order never needs more than may be on their way.
    """

    def __init__(self, remembered_keys: int) -> None:
        self._remembered_keys = remembered_keys
        self._sent = 0
        self._refused: dict[str, int] = {}
        """Key -> its place when it was sent for the first time."""

    def place(self, key: str) -> Place:
        """The place of an append that has just come."""
        self._sent += 1
        return Place(self, self._sent, key)

    def awaited(self, place: Place) -> str:
        """The key that has to come before this one; empty when it is this one's turn."""
        if not self._refused:
            return ""
        key, number = min(self._refused.items(), key=lambda entry: entry[1])
        return "" if key == place.key or number > place.number else key

    def answered(self, place: Place, answer: object) -> None:
        """Note what became of an append."""
        if not (isinstance(answer, Refusal) and answer.info.action is ClientAction.RETRY):
            self._refused.pop(place.key, None)
        elif len(self._refused) < self._remembered_keys:
            self._refused.setdefault(place.key, place.number)

    def copy(self) -> Pipeline:
        """The same, for trying out what a batch would do that may fail."""
        other = Pipeline(self._remembered_keys)
        other._refused = dict(self._refused)
        return other


def out_of_order(awaited: str) -> Refusal:
    """The refusal of what would overtake the append with the key `awaited`."""
    text = (
        f"an append of this run that was sent before, {awaited}, was refused and has not come again; "
        "send it again, and then what was sent after it, in the same order"
    )
    metadata = {"resend_from": awaited}
    return Refusal("append_out_of_order", text, metadata=metadata, retry_after_ms=OVERTAKEN_RETRY_MS)
