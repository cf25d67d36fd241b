"""Frames as they lie in rings and pages: encoded once, in the forms that connections want."""

from collections.abc import Sequence
from typing import NamedTuple

from oa_khala.frames import Form
from oa_khala.wire import proto_to_json
from services.khala_gateway.feeds.domain import binary_message, payload_of, text_message


class Entry:
    """One frame as a complete WebSocket message; the JSON form is made when somebody first wants it."""

    __slots__ = ("_text", "binary")

    def __init__(self, frame: bytes) -> None:
        self.binary = binary_message(frame)
        self._text: bytes | None = None

    def message(self, form: Form) -> bytes:
        """The message in `form`."""
        if form is Form.PROTO:
            return self.binary
        if self._text is None:
            self._text = text_message(proto_to_json(payload_of(self.binary)))
        return self._text


def entry_size(entry: Entry) -> int:
    """What an entry counts for in a ring, in bytes."""
    return len(entry.binary)


class Segment(NamedTuple):
    """So many consecutive frames as complete messages, joined: one write."""

    data: bytes
    frames: int
    first_seq: int


EMPTY = Segment(b"", 0, 0)


def join(first_seq: int, entries: Sequence[Entry], form: Form) -> Segment:
    """All of `entries`, which begin at `first_seq`, in one piece."""
    if len(entries) == 1:
        return Segment(entries[0].message(form), 1, first_seq)
    return Segment(b"".join([entry.message(form) for entry in entries]), len(entries), first_seq)
