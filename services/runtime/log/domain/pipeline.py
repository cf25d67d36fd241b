"""The appends of one lease over one stream, of which several may be on their way: none overtakes another. Pure.

An append may be refused temporarily: the database is away, the queue is full, the run is too fast. The sender has to
send it again, and appends that were sent after it must not be stored before it. So these are refused too, until the
first refused append comes again, and then the next one, in the order in which they were sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal

OVERTAKEN_RETRY_MS = 100
"""Retry delay for an append that would overtake: sent again in order, it need not wait longer."""


@dataclass(frozen=True, slots=True)
class Place:
    """An append's place in the order of sending."""

    pipeline: Pipeline
    number: int
    key: str


class Pipeline:
    """The appends that were sent, and those of them that were refused temporarily and have not come again.

    It remembers up to `remembered_keys` refused keys. A sender that sends in order never needs more than may be on
    their way.
    """

    def __init__(self, remembered_keys: int) -> None:
        self._remembered_keys = remembered_keys
        self._sent = 0
        self._refused: dict[str, int] = {}
        """Key -> its place when it was sent for the first time."""

    def place(self, key: str) -> Place:
        """Return the place of an append that has just arrived."""
        self._sent += 1
        return Place(self, self._sent, key)

    def awaited(self, place: Place) -> str:
        """The key that has to come before this one; empty when it is this one's turn."""
        if not self._refused:
            return ""
        key, number = min(self._refused.items(), key=lambda entry: entry[1])
        return "" if key == place.key or number > place.number else key

    def answered(self, place: Place, answer: object) -> None:
        """Note the answer to an append."""
        if not (isinstance(answer, Refusal) and answer.info.action is ClientAction.RETRY):
            self._refused.pop(place.key, None)
        elif len(self._refused) < self._remembered_keys:
            self._refused.setdefault(place.key, place.number)

    def copy(self) -> Pipeline:
        """Return a copy, for trying out a batch that may fail."""
        other = Pipeline(self._remembered_keys)
        other._refused = dict(self._refused)
        return other


def out_of_order(awaited: str) -> Refusal:
    """The refusal of an append that would overtake the one with the key `awaited`."""
    text = (
        f"an append of this run that was sent before, {awaited}, was refused and has not come again; "
        "send it again, and then what was sent after it, in the same order"
    )
    metadata = {"resend_from": awaited}
    return Refusal("append_out_of_order", text, metadata=metadata, retry_after_ms=OVERTAKEN_RETRY_MS)
