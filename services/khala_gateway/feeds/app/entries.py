"""Frames as rings and pages hold them: encoded once, in the encodings that connections want."""

from collections.abc import Sequence
from typing import NamedTuple

from oa_khala.frames import Form
from oa_khala.readable import readable_json
from oa_khala.wire import proto_to_json
from services.khala_gateway.feeds.domain import (
    Encoding,
    binary_message,
    deflated,
    encoding_of,
    payload_of,
    text_message,
)
from services.khala_gateway.feeds.metrics import DEFLATED_BYTES, INFLATED_BYTES, UNREADABLE_PAYLOADS

_BINARY = encoding_of(Form.PROTO)


class Entry:
    """One frame as a complete WebSocket message. Encodings other than the binary one are made on first use."""

    __slots__ = ("_others", "binary")

    def __init__(self, frame: bytes) -> None:
        self.binary = binary_message(frame)
        # By the number of the encoding.
        self._others: dict[int, bytes] | None = None

    def message(self, encoding: Encoding) -> bytes:
        """The message in `encoding`."""
        if encoding.number == _BINARY.number:
            return self.binary
        if self._others is None:
            self._others = {}
        message = self._others.get(encoding.number)
        if message is None:
            message = self._others[encoding.number] = self._encoded(encoding)
        return message

    def _encoded(self, encoding: Encoding) -> bytes:
        plain = self.binary if encoding.is_binary else self._text(encoding.form)
        if encoding.deflate_from is None:
            return plain
        message = deflated(plain, encoding.deflate_from)
        if message is not plain:
            INFLATED_BYTES.inc(len(plain))
            DEFLATED_BYTES.inc(len(message))
        return message

    def _text(self, form: Form) -> bytes:
        if form is Form.JSON:
            return text_message(proto_to_json(payload_of(self.binary)))
        readable = readable_json(payload_of(self.binary))
        if not readable.whole:
            UNREADABLE_PAYLOADS.inc()
        return text_message(readable.text)


def entry_size(entry: Entry) -> int:
    """The size of an entry in a ring, in bytes."""
    return len(entry.binary)


class Segment(NamedTuple):
    """Consecutive frames as complete messages, joined for one write; `frames` is their number."""

    data: bytes
    frames: int
    first_seq: int


EMPTY = Segment(b"", 0, 0)


def join(first_seq: int, entries: Sequence[Entry], encoding: Encoding) -> Segment:
    """Join all of `entries`, which begin at `first_seq`, into one segment."""
    if len(entries) == 1:
        return Segment(entries[0].message(encoding), 1, first_seq)
    return Segment(b"".join([entry.message(encoding) for entry in entries]), len(entries), first_seq)
