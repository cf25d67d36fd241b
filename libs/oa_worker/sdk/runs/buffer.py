"""Events of one run that wait for their append. Pure: no clock, no await."""

from __future__ import annotations

from dataclasses import dataclass, field

from openagents.runtime.v1.event_pb2 import EventBody, TextDelta

EVENT_OVERHEAD_BYTES = 32
"""Added to each event's size: keys, lengths and the envelope that runtime puts around it."""


@dataclass
class _Text:
    """Text of one stream that may still grow."""

    stream: int
    data: bytearray = field(default_factory=bytearray)


class EventBuffer:
    """First in, first out; neighboring text of one stream becomes one event.

    Text joins the newest text of the same stream, as long as nothing but text came since. So a command that
    writes to stdout and stderr in turns costs two events per flush and not one per line; two pipes have no order
    between them anyway.
    """

    def __init__(self, *, max_text_bytes: int) -> None:
        self._max_text_bytes = max_text_bytes
        self._entries: list[_Text | EventBody] = []
        self._open: dict[int, _Text] = {}
        self.bytes = 0
        self.only_text = True
        self.added = 0
        """How many events were begun in all; the taken ones are the oldest of them."""

    def __len__(self) -> int:
        """The number of events that the buffer would make now."""
        return len(self._entries)

    def add(self, event: EventBody) -> None:
        """Take an event. Text longer than the limit becomes several."""
        if event.WhichOneof("kind") == "text_delta":
            self._add_text(event.text_delta.stream, event.text_delta.data)
            return
        self._open.clear()
        self._entries.append(event)
        self.added += 1
        self.bytes += event.ByteSize() + EVENT_OVERHEAD_BYTES
        self.only_text = False

    def take(self, *, max_events: int, max_bytes: int) -> list[EventBody]:
        """Remove and return the oldest events within the limits; the first one whatever its size."""
        self._open.clear()
        taken: list[EventBody] = []
        size = 0
        for entry in self._entries[:max_events]:
            entry_bytes = _size(entry)
            if taken and size + entry_bytes > max_bytes:
                break
            taken.append(_event(entry))
            size += entry_bytes
        del self._entries[: len(taken)]
        self.bytes -= size
        self.only_text = all(isinstance(entry, _Text) for entry in self._entries)
        return taken

    def _add_text(self, stream: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            text = self._open.get(stream)
            if text is None or len(text.data) >= self._max_text_bytes:
                text = self._open[stream] = _Text(stream)
                self._entries.append(text)
                self.added += 1
                self.bytes += EVENT_OVERHEAD_BYTES
            piece = view[: self._max_text_bytes - len(text.data)]
            text.data += piece
            self.bytes += len(piece)
            view = view[len(piece) :]


def _size(entry: _Text | EventBody) -> int:
    return (len(entry.data) if isinstance(entry, _Text) else entry.ByteSize()) + EVENT_OVERHEAD_BYTES


def _event(entry: _Text | EventBody) -> EventBody:
    if isinstance(entry, _Text):
        return EventBody(text_delta=TextDelta(stream=entry.stream, data=bytes(entry.data)))  # type: ignore[arg-type]
    return entry
